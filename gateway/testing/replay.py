"""Today's code against what a run has recorded: nothing is done again, nothing is written, and what differs is told.

Steps that the run remembers give what they gave. One that it does not know is not done: the branch that comes to it stops
there. The function's own code between its steps does run, as it does at every attempt.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import msgspec

from gateway import codec
from gateway.clock import NEVER, Clock, Micros
from gateway.core.outcome import Completed, Failed, Failure, Outcome
from gateway.core.steps import CALLS, Invoke, Kind, NewEvent, Operation, Step
from gateway.engine.branches import Branches, adopting
from gateway.engine.invoker import Call
from gateway.engine.ledger import RunLedger
from gateway.engine.local import LocalInvoker
from gateway.errors import StepMismatch
from gateway.sdk.function import Function
from gateway.sdk.step import Options, Work
from gateway.store.runs import Claimed

State = Literal["same", "moved", "waiting", "new", "other_kind", "unreached"]

MEANINGS: Mapping[State, str] = {
    "same": "as recorded",
    "moved": "comes in another order than recorded",
    "waiting": "not over when this was recorded",
    "new": "is not in the record, and was not done",
    "other_kind": "is of another kind than recorded",
    "unreached": "is in the record, and today's code does not come to it",
}
DIFFERENT: frozenset[State] = frozenset({"moved", "new", "other_kind", "unreached"})


class ReplayedStep(msgspec.Struct, frozen=True):
    """A step, in today's order; `recorded_kind` where the record has it. Steps that are not reached come last."""

    key: str
    kind: Kind
    state: State
    recorded_kind: Kind | None = None
    subject: str | None = None


class Ending(msgspec.Struct, frozen=True):
    """How a run ended, or that it has not: then its output and error are None."""

    status: str
    output: msgspec.Raw | None = None
    error: Failure | None = None


class Replay(msgspec.Struct, frozen=True):
    """What came of it, with which version of the function. `differences`: a sentence each; none means that today's code does
    what was recorded."""

    run_id: str
    function_id: str
    version: int | None
    steps: tuple[ReplayedStep, ...]
    recorded: Ending
    today: Ending
    differences: tuple[str, ...]


async def replay(function: Function[Any], run: Claimed, recorded: Ending, now: Micros) -> Replay:
    """Run a function on a recorded run, as of `now`, the time of the record."""
    seen = Seen(run.steps)
    invoker = LocalInvoker({run.function_id: function}, lambda: now, partial(ReplayLedger, seen))
    asyncio.get_running_loop().set_task_factory(adopting)
    call = Call(run, seen.record, lambda level, text: None, lambda done, total, message: None)
    logging.getLogger("tidegate.function").addHandler(logging.NullHandler())
    outcome = await asyncio.create_task(invoker.invoke(call))
    steps, today = tuple(seen.steps()), _ending(outcome)
    return Replay(run.run_id, function.id, function.spec.version, steps, recorded, today, tuple(_differences(steps, recorded, today)))


class Seen:
    """What a replay comes to, in its order."""

    def __init__(self, recorded: Sequence[Step]) -> None:
        self._recorded = {step.key: step for step in recorded}
        self._places = {step.key: place for place, step in enumerate(recorded)}
        self._reached: dict[str, tuple[Kind, State]] = {}
        self._subjects = {step.key: step.subject for step in recorded}
        self._latest: dict[object, int] = {}

    def reach(self, key: str, kind: Kind, branch: object) -> None:
        """A step is come to, in one of the branches that run side by side: between those there is no order."""
        step = self._recorded.get(key)
        if step is None:
            self._reached[key] = (kind, "new")
            return
        place, latest = self._places[key], self._latest.get(branch, -1)
        self._latest[branch] = max(place, latest)
        self._reached[key] = (kind, "other_kind" if step.kind != kind else "moved" if place < latest else "same")

    def stop(self, key: str, subject: str | None) -> None:
        """A step is not done."""
        kind, state = self._reached[key]
        self._subjects[key] = subject or self._subjects.get(key)
        self._reached[key] = (kind, "waiting" if state == "same" else state)

    async def record(self, operation: Operation, fresh: bool) -> Step:
        """Nothing is recorded: the step waits, for as long as the replay takes."""
        step = operation.step
        self.stop(step.key, operation.function_id if isinstance(operation, Invoke) else step.subject)
        return msgspec.structs.replace(step, status="retrying" if step.kind == "run" else "waiting", due_at=NEVER, error=None)

    def steps(self) -> Sequence[ReplayedStep]:
        """All that was reached, then what was not."""
        found = [
            ReplayedStep(key, kind, state, self._recorded[key].kind if key in self._recorded else None, self._subjects.get(key))
            for key, (kind, state) in self._reached.items()
        ]
        left = [step for key, step in self._recorded.items() if key not in self._reached]
        return found + [ReplayedStep(step.key, step.kind, "unreached", step.kind, step.subject) for step in left]


class ReplayLedger(RunLedger):
    """A ledger that recalls, and does nothing."""

    def __init__(self, seen: Seen, call: Call, branches: Branches, retries: int, clock: Clock) -> None:
        super().__init__(call, branches, retries, clock)
        self._seen = seen

    async def _try(self, step: Step, work: Work, options: Options) -> Step:
        return msgspec.structs.replace(step, status="retrying", due_at=NEVER)

    async def send(self, id: str, events: tuple[NewEvent, ...]) -> bytes:
        key, step = self._take(id, "send")
        if step is None:
            self._seen.stop(key, ", ".join(event.name for event in events))
            await self._branches.park(NEVER, "new")
        return step.output or b"null" if step is not None else b"null"

    def _take(self, id: str, kind: Kind) -> tuple[str, Step | None]:
        # Of a plain function each step is a task of its own, and its branches are threads.
        branch = asyncio.current_task() if self._branches.threads != 1 else None
        try:
            key, step = super()._take(id, kind)
        except StepMismatch:
            uses = self._uses[id]
            self._seen.reach(id if uses == 1 else f"{id}#{uses}", kind, branch)
            raise
        self._seen.reach(key, kind, branch)
        return key, step


def _ending(outcome: Outcome) -> Ending:
    match outcome:
        case Completed(output=output):
            return Ending("succeeded", msgspec.Raw(output))
        case Failed(error=error):
            return Ending("failed", error=error)
        case _:
            return Ending("waiting")


def _differences(steps: Sequence[ReplayedStep], recorded: Ending, today: Ending) -> Sequence[str]:
    # A run that is just going on has not come to its next step yet.
    ahead = recorded.status in ("queued", "running")
    found = [_difference(step) for step in steps if step.state in DIFFERENT and not (step.state == "new" and ahead)]
    if recorded.status in ("succeeded", "failed") and today.status != recorded.status:
        found.append(f"the run {_became(recorded)}, and today it {_became(today)}")
    elif recorded.status == "succeeded" and _value(recorded) != _value(today):
        found.append("the output is another one")
    elif recorded.status == "failed" and _said(recorded.error) != _said(today.error):
        found.append(f"the error was {_said(recorded.error)}, and today it is {_said(today.error)}")
    elif recorded.status not in ("succeeded", "failed") and today.status == "succeeded":
        found.append(f"the run was {recorded.status}, and today it succeeded")
    return found


def _difference(step: ReplayedStep) -> str:
    if step.state == "other_kind" and step.recorded_kind is not None:
        return f"step {step.key!r} is `{CALLS[step.kind]}`, and was `{CALLS[step.recorded_kind]}`"
    return f"step {step.key!r} {MEANINGS[step.state]}"


def _became(ending: Ending) -> str:
    return f"failed with {_said(ending.error)}" if ending.error is not None else {"waiting": "waits"}.get(ending.status, ending.status)


def _said(error: Failure | None) -> str:
    return f"{error.type}: {error.message}" if error is not None else "none"


def _value(ending: Ending) -> Any:
    return None if ending.output is None else codec.loads(bytes(ending.output))
