"""Runs a function in memory, in one call, in no time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Generator, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypedDict, TypeVar, Unpack

import msgspec

from gateway import codec
from gateway.clock import from_datetime, system_clock, to_datetime
from gateway.core.spec import Manifest
from gateway.core.steps import NewEvent, Step
from gateway.engine.branches import adopting
from gateway.engine.runlog import Capture
from gateway.errors import DeclarationError
from gateway.ingest.fanout import Fanout
from gateway.sdk.function import INVOKED, Function
from gateway.sdk.step import Arrived, returned
from gateway.store.inbox import EventRecord, NewDelivery
from gateway.store.runs import OUTCOMES, LogLine
from gateway.testing.memory import Memory
from gateway.testing.runs import Clock, Run
from gateway.testing.stubs import Stubs
from gateway.testing.supplies import After, Supply, supplies
from gateway.testing.trace import Logged, StepTrace, Trace
from gateway.testing.world import World

R = TypeVar("R")


class Unused(AssertionError):
    """Something was given to a test that the run never came to: an id or a name is misspelt, or the code has changed."""


class Given(TypedDict, total=False):
    """What a run is given.

    `steps`: by the id of a `step.run` or `step.invoke`, what stands in for it: a value, an error to raise, a callable that
    gets the step's arguments, or `in_turn(…)` of those for its tries. Other steps are done for real.
    `events`: events that arrive, each as soon as a step waits for it, or at a time: `after(event, hours=3)`.
    `signals`: by name the data of signals, which come as soon as a step waits for them, or at a time: `after(data, hours=3)`.
    `functions`: other functions that are there: invoked, or triggered by what is sent or arrives, they run too.
    `source`, `attributes`: those of the run's event.
    """

    steps: Mapping[str, Any]
    events: Sequence[NewEvent | After[NewEvent]]
    signals: Mapping[str, Any]
    functions: Sequence[Function[Any]]
    source: str
    attributes: Mapping[str, Any]


class Runner:
    """Runs functions one after the other, on one clock that stands still while they work, and moves on while they wait.

    `at`: what time it is at first; the time of day unless given. `seed`: of the randomness, that in the times between retries
    included, which begins anew with every run.
    """

    def __init__(self, *, at: datetime | None = None, seed: int = 0) -> None:
        if at is not None and at.tzinfo is None:
            raise DeclarationError(f"`at` needs a datetime with a time zone, not {at!r}")
        self._clock = Clock(system_clock() if at is None else from_datetime(at))
        self._seed = seed

    @property
    def now(self) -> datetime:
        """What time it is."""
        return to_datetime(self._clock.now)

    def pass_time(self, duration: timedelta) -> None:
        """Move the clock on."""
        self._clock.now += duration // timedelta(microseconds=1)

    def run(self, function: Function[R], event: Any = None, /, **given: Unpack[Given]) -> Trace[R]:
        """Run a function on an event until it is final; what it did.

        `event`: made by `InvoicePaid.new(…)` or `new_event(name, data)`; or only its data, for a function that listens to one
        name or to none; without it the sample of its class. Raises Stuck for a wait that nothing can end, Unused when the
        run succeeds without having come to all that it was given.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass  # and not the run in here: its errors would have this one above them
        else:
            raise DeclarationError("run() is called in a coroutine: there it is `await run_async(…)`")
        return asyncio.run(self.run_async(function, event, **given))

    async def run_async(self, function: Function[R], event: Any = None, /, **given: Unpack[Given]) -> Trace[R]:
        """`run`, for tests that are coroutines."""
        with _alone(self._seed):
            return await self._run(function, event, given)

    async def _run(self, function: Function[R], event: Any, given: Given) -> Trace[R]:
        started_at, others = self._clock.now, given.get("functions", ())
        on_demand, timed = supplies(given.get("events", ()), given.get("signals", {}), started_at)
        stubs = Stubs(given.get("steps", {}))
        memory = Memory(self._clock, {one.id: one for one in others}, stubs, on_demand)
        new = _event(function, event)
        made = memory.event(new, given.get("source", "test"), given.get("attributes", {}), new.id)
        delivery = _delivery(function, made)
        if delivery.skip_reason is not None:
            return _trace(Run("", function, made, started_at, started_at), (), stubs, skip_reason=delivery.skip_reason)
        main = memory.start(function, made, delivery.cancels)
        await World(self._clock, memory, [function, *others], stubs).play(main, timed)
        unused = [*stubs.unused(), *_unused([*on_demand, *timed], memory.asked)]
        others_ran = tuple(_trace(run, (), stubs) for run in memory.runs if run is not main)
        trace = _trace(main, others_ran, stubs, unused=tuple(unused))
        if unused and trace.status == "succeeded":
            raise Unused("; ".join(unused) + f"\n{trace}")
        return trace


def run(function: Function[R], event: Any = None, /, **given: Unpack[Given]) -> Trace[R]:
    """`Runner.run`, with a runner of its own."""
    return Runner().run(function, event, **given)


async def run_async(function: Function[R], event: Any = None, /, **given: Unpack[Given]) -> Trace[R]:
    """`Runner.run_async`, with a runner of its own."""
    return await Runner().run_async(function, event, **given)


def _event(function: Function[Any], event: Any) -> NewEvent:
    """The event to run a function on."""
    if isinstance(event, NewEvent):
        return event
    on, kinds = function.spec.on, function.event_types
    if event is None and kinds and kinds[0].sample is not None:
        return NewEvent(kinds[0].event_name, codec.dumps(kinds[0].sample))
    if len(on) > 1 or any("*" in name for name in on):
        raise DeclarationError(
            f"function {function.id!r} listens to {', '.join(on)}: give it an event, made by a class's `new` or by"
            " `new_event(name, data)`, and not only its data"
        )
    return NewEvent(on[0] if on else INVOKED, codec.dumps(event))


def _delivery(function: Function[Any], event: EventRecord) -> NewDelivery:
    """What becomes of an event for a function."""
    fanout = Fanout({"test": Manifest(specs=(function.spec,))})
    if event.name == INVOKED:
        return fanout.run(function.id)
    found = fanout.deliveries(event, event.data or b"null")
    if not found:
        names = ", ".join(repr(name) for name in function.spec.on) or "nothing"
        raise DeclarationError(f"function {function.id!r} does not listen to {event.name!r}, but to {names}")
    return found[0]


@contextlib.contextmanager
def _alone(seed: int) -> Generator[None]:
    """The loop, the logs and the randomness as runs want them; afterwards all is as it was."""
    loop, root, capture, state = asyncio.get_running_loop(), logging.getLogger(), Capture(), random.getstate()
    factory, level = loop.get_task_factory(), root.level
    loop.set_task_factory(adopting)
    root.addHandler(capture)
    root.setLevel(min(level or logging.INFO, logging.INFO))
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
        root.setLevel(level)
        root.removeHandler(capture)
        loop.set_task_factory(factory)


def _unused(given: Sequence[Supply], asked: set[str]) -> Iterator[str]:
    for supply in given:
        if supply.used or (supply.at is not None and supply.shown in asked):
            continue
        hint = "" if supply.at is not None else "; what no step waits for arrives only at a time: after(…)"
        if supply.shown in asked:
            hint = ", and it did not fit, or another one that fitted had come before"
        known = "only " + ", ".join(sorted(asked)) if asked else "nothing"
        yield f"the {supply.shown} was not used: {known} was waited for{hint}"


def _trace(
    run: Run, runs: tuple[Trace[Any], ...], stubs: Stubs, unused: tuple[str, ...] = (), skip_reason: str | None = None
) -> Trace[Any]:
    ending = run.ending
    started_at = run.created_at if run.started_at is None else run.started_at
    finished_at = started_at if run.finished_at is None else run.finished_at
    return Trace(
        function_id=run.function.id,
        run_id=run.id,
        status="skipped" if skip_reason else "waiting" if ending is None else OUTCOMES[ending.move],  # type: ignore[arg-type]
        error=ending.error if ending is not None else None,
        steps=tuple(_step(run, step, stubs) for step in sorted(run.steps.values(), key=lambda step: step.position)),
        attempts=tuple(run.attempts),
        sent=tuple(run.sent),
        logs=tuple(_logged(line) for line in run.said),
        progress=tuple(run.progress),
        started_at=to_datetime(started_at),
        finished_at=to_datetime(finished_at),
        skip_reason=skip_reason,
        runs=runs,
        unused=unused,
        result=_result(run.function, ending.output) if ending is not None and ending.output is not None else None,
    )


def _result(function: Function[Any], output: bytes) -> Any:
    try:
        return codec.decode_as(returned(function.handler), output)
    except TypeError:  # an annotation that JSON has no form for
        return codec.loads(output)


def _logged(line: LogLine) -> Logged:
    return Logged(level=line.level, message=line.message, attempt=line.attempt, step=line.step, at=to_datetime(line.at))


def _step(run: Run, step: Step, stubs: Stubs) -> StepTrace:
    output = codec.loads(step.output) if step.output is not None else None
    if step.kind == "event" and step.output is not None:
        output = codec.loads(bytes(msgspec.json.decode(step.output, type=Arrived).data))
    slept = step.kind == "sleep" and (run.finished_at or 0) >= (step.due_at or 0)
    finished_at = step.due_at if slept else step.finished_at
    return StepTrace(
        id=step.key,
        kind=step.kind,
        status="succeeded" if slept else step.status,
        output=output,
        error=step.error,
        attempts=step.attempts,
        errors=tuple(run.failures.get(step.key, [])),
        started_at=to_datetime(step.started_at),
        finished_at=None if finished_at is None else to_datetime(finished_at),
        due_at=None if step.due_at is None else to_datetime(step.due_at),
        subject=step.subject,
        stubbed=step.kind in ("run", "invoke") and stubs.stands_for(step.key),
    )
