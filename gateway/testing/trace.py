"""What a run did, to assert on: plain frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, TypeVar

from gateway.core.outcome import Failure
from gateway.core.steps import CALLS, Kind, StepStatus

R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class StepTrace:
    """A step. `output`: what it gave, as plain JSON values; of an event that was waited for, its data.

    `attempts`: how many tries ended; `errors`: those of the tries that failed. `subject`: the event name, signal or run that
    it waited for.
    """

    id: str
    kind: Kind
    status: StepStatus
    output: Any
    error: Failure | None
    attempts: int
    errors: tuple[Failure, ...]
    started_at: datetime
    finished_at: datetime | None
    due_at: datetime | None
    subject: str | None
    stubbed: bool


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """An attempt of the run that ended; being parked for a sleep, a wait or a step's retry is no end."""

    number: int
    outcome: Literal["succeeded", "failed", "cancelled"]
    error: Failure | None
    started_at: datetime
    finished_at: datetime


@dataclass(frozen=True, kw_only=True)
class Sent:
    """An event that a step sent."""

    id: str
    name: str
    data: Any
    step: str


@dataclass(frozen=True, kw_only=True)
class Logged:
    """A line that the run logged, in `step` or outside of any."""

    level: str
    message: str
    attempt: int
    step: str | None
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the run said it was."""

    done: int
    total: int | None
    message: str


@dataclass(frozen=True, kw_only=True)
class Trace(Generic[R]):
    """One run, from its start to its end. `print(trace)` shows it as a timeline.

    `runs`: the other runs there were: of functions that were invoked or triggered, and of `on_failure` handlers.
    `unused`: what was given to the test and that the run never came to; of a run that succeeded it is an error.
    """

    function_id: str
    run_id: str
    status: Literal["succeeded", "failed", "cancelled", "skipped", "waiting"]
    error: Failure | None
    steps: tuple[StepTrace, ...]
    attempts: tuple[Attempt, ...]
    sent: tuple[Sent, ...]
    logs: tuple[Logged, ...]
    progress: tuple[Progress, ...]
    started_at: datetime
    finished_at: datetime
    skip_reason: str | None = None
    runs: tuple[Trace[Any], ...] = ()
    unused: tuple[str, ...] = ()
    result: R | None = field(default=None, repr=False)

    @property
    def output(self) -> R:
        """What the function returned, as it says that it does. Raises AssertionError, with the reason, where it did not."""
        if self.status != "succeeded":
            raise AssertionError(f"the run has no output:\n{self}")
        return self.result  # type: ignore[return-value]  # None is what it returned then

    @property
    def duration(self) -> timedelta:
        """How long it took, in its own time."""
        return self.finished_at - self.started_at

    @property
    def slept(self) -> timedelta:
        """How long its sleeps were, all together."""
        sleeps = [step.due_at - step.started_at for step in self.steps if step.kind == "sleep" and step.due_at is not None]
        return sum(sleeps, timedelta(0))

    def step(self, id: str) -> StepTrace:
        """The step of this id. Raises AssertionError, naming those there are, where it was never reached."""
        found = next((step for step in self.steps if step.id == id), None)
        if found is None:
            raise AssertionError(f"there was no step {id!r}, only {_listed([step.id for step in self.steps])}\n{self}")
        return found

    def runs_of(self, function_id: str) -> tuple[Trace[Any], ...]:
        """The other runs of one function, in the order they began."""
        return tuple(run for run in self.runs if run.function_id == function_id)

    def __str__(self) -> str:
        lines = [f"{self.function_id}  {self.run_id}  {self.status}  {self.duration}"]
        if self.skip_reason is not None:
            lines.append(f"  skipped: {self.skip_reason}")
        for step in self.steps:
            lines += _step_lines(step, self.started_at)
        lines += [f"  sent {sent.name}  {sent.data!r}" for sent in self.sent]
        lines += [f"  attempt {one.number} {one.outcome}{_said(one.error)}" for one in self.attempts]
        if self.error is not None and self.error not in [one.error for one in self.attempts]:
            lines.append(f"  {self.status}{_said(self.error)}")
        if self.error is not None and self.error.traceback:
            lines += [f"    {line}" for line in self.error.traceback.rstrip().splitlines()]
        lines += [f"  never came to: {unused}" for unused in self.unused]
        return "\n".join(lines)


def _step_lines(step: StepTrace, start: datetime) -> list[str]:
    what = CALLS[step.kind] + (f" {step.subject}" if step.subject else "")
    lines = [f"  {step.started_at - start}  {step.id}  {what}  {step.status}{'  (stubbed)' if step.stubbed else ''}"]
    return lines + [f"    try {n} failed{_said(error)}" for n, error in enumerate(step.errors, 1)]


def _said(error: Failure | None) -> str:
    return f": {error.type}: {error.message}".partition("\n")[0] if error is not None else ""


def _listed(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names) or "none at all"
