"""The shipped test kit, for authors of providers and functions. Nothing in Tidegate but the CLI imports it."""

from gateway.testing.runner import Given, Runner, Unused, run, run_async
from gateway.testing.runs import Stuck
from gateway.testing.stubs import in_turn
from gateway.testing.supplies import after
from gateway.testing.trace import Attempt, Logged, Progress, Sent, StepTrace, Trace

__all__ = [
    "Attempt",
    "Given",
    "Logged",
    "Progress",
    "Runner",
    "Sent",
    "StepTrace",
    "Stuck",
    "Trace",
    "Unused",
    "after",
    "in_turn",
    "run",
    "run_async",
]
