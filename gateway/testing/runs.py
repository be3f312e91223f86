"""A run as a test keeps it: what the store would know of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from gateway.clock import Micros
from gateway.core.decide import Decision
from gateway.core.outcome import Failure
from gateway.core.steps import Condition, Step
from gateway.sdk.function import Function
from gateway.store.inbox import EventRecord
from gateway.store.runs import Claimed, LogLine
from gateway.store.waits import Wait
from gateway.testing.trace import Attempt, Progress, Sent


class Stuck(AssertionError):
    """A run that can never end: what it waits for never comes."""


@dataclass
class Clock:
    """Time that passes only when it is told to."""

    now: Micros

    def __call__(self) -> Micros:
        return self.now


@dataclass(eq=False)
class Run:
    """A run, from its making to its end. `held`: an attempt is under way. `ending`: the decision that made it final.

    `parent`: the run that invoked it from the step `parent_key`, or without a key the one whose failure it handles.
    """

    id: str
    function: Function[Any]
    event: EventRecord
    created_at: Micros
    due_at: Micros
    cancels: tuple[Wait, ...] = ()
    parent: Run | None = None
    parent_key: str | None = None
    started_at: Micros | None = None
    finished_at: Micros | None = None
    attempt: int = 0
    fence: int = 0
    held: bool = False
    ending: Decision | None = None
    steps: dict[str, Step] = field(default_factory=dict[str, Step])
    waits: dict[str, Wait] = field(default_factory=dict[str, Wait])
    failures: dict[str, list[Failure]] = field(default_factory=dict[str, list[Failure]])
    attempts: list[Attempt] = field(default_factory=list[Attempt])
    sent: list[Sent] = field(default_factory=list[Sent])
    said: list[LogLine] = field(default_factory=list[LogLine])
    progress: list[Progress] = field(default_factory=list[Progress])

    @property
    def live(self) -> bool:
        """Whether it goes on."""
        return self.ending is None

    def show(self, done: int, total: int | None, message: str) -> None:
        """Keep how far it says it is."""
        self.progress.append(Progress(done=done, total=total, message=message))

    def claimed(self) -> Claimed:
        """The run as an invoker is given it."""
        event, parent = self.event, self.parent
        error = parent.ending.error if parent is not None and parent.ending is not None and self.parent_key is None else None
        return Claimed(
            run_id=self.id,
            function_id=self.function.spec.queued_as,
            attempt=self.attempt,
            max_attempts=self.function.spec.attempts,
            fence=self.fence,
            first_started_at=self.started_at or self.created_at,
            due_at=self.due_at,
            event_id=event.id,
            event_name=event.name,
            source=event.source,
            occurred_at=event.occurred_at,
            received_at=event.received_at,
            attributes=event.attributes,
            traceparent=None,
            data_path="",
            body=event.data or b"null",
            created_at=self.created_at,
            parent_id=parent.id if parent is not None else None,
            parent_key=self.parent_key,
            parent_error=msgspec.json.encode(error) if error is not None else None,
            steps=tuple(self.steps.values()),
        )


def why_stuck(run: Run, runs: list[Run], unused: set[str]) -> str:
    """What a run waits for; `unused`: the names of what was given and fitted nothing."""
    return "; ".join(_waits_for(run, key, wait, runs, unused) for key, wait in run.waits.items()) or "it waits for nothing"


def _waits_for(run: Run, key: str, wait: Wait, runs: list[Run], unused: set[str]) -> str:
    subject = run.steps[key].subject
    if wait.kind == "invoke":
        child = next(one for one in runs if one.id == subject)
        return f"step {key!r} waits for a run of {child.function.id!r}, in which {why_stuck(child, runs, unused)}"
    if wait.kind == "signal":
        hint = (
            f"give signals={{{subject!r}: …}}, at a time when it is waited for" if subject in unused else f"give signals={{{subject!r}: …}}"
        )
        return f"step {key!r} waits for the signal {subject!r}, without a timeout: {hint}"
    hint = "none of those given fits" if subject in unused else "give one in events=[…]"
    return f"step {key!r} waits for an event {subject!r}{_such(wait.condition)}, without a timeout: {hint}"


def _such(condition: Condition | None) -> str:
    if condition is None or not (condition.if_ or condition.path):
        return ""
    return f" for which {condition.if_} is true" if condition.if_ else f" whose `{condition.path}` is that of the run's event"
