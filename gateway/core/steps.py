"""What a run remembers of its steps, and the operations that add to it: plain values between invoker, engine and store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from gateway.clock import Micros
from gateway.core.outcome import Failure

Kind = Literal["run", "sleep", "event", "signal", "invoke", "send"]
StepStatus = Literal["succeeded", "failed", "retrying", "waiting"]

# As an author writes them: for messages.
CALLS: Mapping[Kind, str] = {
    "run": "step.run",
    "sleep": "step.sleep",
    "event": "step.wait_for_event",
    "signal": "step.wait_for_signal",
    "invoke": "step.invoke",
    "send": "step.send_event",
}


class Step(msgspec.Struct, frozen=True):
    """A step as the run remembers it. `key` is its id, from the second use in a run on with `#2`, `#3`, …

    `attempts` counts tries that ended. `due_at`: when it is tried again, wakes up, or stops waiting. `subject`: the event
    name, signal or child run it waits for.
    """

    key: str
    kind: Kind
    status: StepStatus
    position: int
    attempts: int
    started_at: Micros
    finished_at: Micros | None = None
    due_at: Micros | None = None
    output: bytes | None = None
    error: Failure | None = None
    subject: str | None = None


class NewEvent(msgspec.Struct, frozen=True):
    """An event to send: its data as JSON, and the id that makes it the same event when it is sent again."""

    name: str
    data: bytes
    id: str | None = None
    occurred_at: Micros | None = None


class Condition(msgspec.Struct, frozen=True):
    """Which event a wait is for: one named `name` whose value at `path` hashes to `hash`, and for which `if_` is true.

    `variables` are what `if_` knows besides `async`, the event that arrives. An empty path: any event of the name. `exclude`:
    ids of events that it is not for, because the run has had them.
    """

    name: str
    path: str
    hash: bytes
    if_: str | None = None
    variables: Mapping[str, Any] | None = None
    exclude: tuple[str, ...] = ()


class StepEnded(msgspec.Struct, frozen=True):
    """A try at a step, or a step without tries, has come to this."""

    step: Step


class Send(msgspec.Struct, frozen=True):
    """Send events, and remember their ids as the step's output, in one transaction."""

    step: Step
    events: tuple[NewEvent, ...]


class Invoke(msgspec.Struct, frozen=True):
    """Start a run of another function and wait for its end."""

    step: Step
    function_id: str
    data: bytes


class WaitEvent(msgspec.Struct, frozen=True):
    """Wait for an event that has arrived since the run began, or is still to come."""

    step: Step
    condition: Condition


class WaitSignal(msgspec.Struct, frozen=True):
    """Wait for a signal; its name is the step's subject."""

    step: Step


class TimeOut(msgspec.Struct, frozen=True):
    """Stop waiting, unless what was waited for has come in the meantime."""

    step: Step


Operation = StepEnded | Send | Invoke | WaitEvent | WaitSignal | TimeOut
