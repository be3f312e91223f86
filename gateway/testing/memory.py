"""What a store does, in memory and for one test: keeps steps, lets events and signals arrive, ends what waits for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway import codec
from gateway.core.decide import Decision
from gateway.core.outcome import Failure
from gateway.core.spec import Manifest
from gateway.core.steps import Condition, Invoke, NewEvent, Operation, Send, Step, StepEnded, TimeOut, WaitEvent, WaitSignal
from gateway.core.waits import signal_hash
from gateway.engine.recorder import SOURCE, matches, remembered
from gateway.errors import DeclarationError
from gateway.ingest.fanout import Fanout
from gateway.sdk.function import INVOKED, Function
from gateway.store.inbox import EventRecord, NewDelivery
from gateway.store.waits import Wait
from gateway.testing.runs import Clock, Run, Stuck
from gateway.testing.stubs import Stubs
from gateway.testing.supplies import Supply
from gateway.testing.trace import Sent

MAX_RUNS = 1000
MAX_STEPS = 10_000


class Memory:
    """All runs of a test. `functions`: those that may be invoked or triggered, by id. `broken`: what ends the test."""

    def __init__(self, clock: Clock, functions: Mapping[str, Function[Any]], stubs: Stubs, on_demand: Sequence[Supply]) -> None:
        self.runs: list[Run] = []
        self.asked: set[str] = set()
        self.broken: BaseException | None = None
        self._clock = clock
        self._functions = functions
        self._stubs = stubs
        self.on_demand = on_demand
        self._fanout = Fanout({"test": Manifest(specs=tuple(function.spec for function in functions.values()))})
        self._arrived: list[EventRecord] = []
        self._ids: dict[str, str] = {}

    def event(self, new: NewEvent, source: str, attributes: Mapping[str, Any], key: str | None = None) -> EventRecord:
        """An event that is made now."""
        id, at = f"evt_{len(self._ids) + 1}", self._clock.now
        self._ids[key or id] = id
        return EventRecord(id, new.name, source, key or id, new.occurred_at or at, at, codec.dumps(attributes), data=new.data)

    def start(self, function: Function[Any], event: EventRecord, cancels: Sequence[Wait] = ()) -> Run:
        """A new run, due now."""
        if len(self.runs) >= MAX_RUNS:
            raise Stuck(f"there are {MAX_RUNS} runs by now, the last of {function.id!r}: do functions trigger one another for ever?")
        now = self._clock.now
        run = Run(f"run_{len(self.runs) + 1}", function, event, now, now, tuple(_from_now(wait) for wait in cancels))
        self.asked |= {f"event {wait.condition.name!r}" for wait in cancels if wait.condition is not None}
        self.runs.append(run)
        return run

    def end(self, run: Run, decision: Decision) -> None:
        """A run is final: tell whoever waits for it, and start its `on_failure` handler."""
        run.ending, run.finished_at, run.waits = decision, self._clock.now, {}
        if run.parent is not None and run.parent_key is not None:
            error = decision.error
            if error is not None:
                error = Failure(error.type, f"run {run.id} of {run.function.id!r}: {error.message}", error.traceback)
            self._come(run.parent, run.parent_key, decision.output, error)
        if decision.move == "fail" and run.function.failure is not None:
            self.start(run.function.failure, run.event).parent = run

    # What steps do.

    async def record(self, run: Run, operation: Operation) -> Step | None:
        """Keep what a step has come to; None, which ends the attempt, where the run is over or the test is."""
        if not run.live or self.broken is not None:
            return None
        try:
            await self._keep(run, operation)
        except (DeclarationError, Stuck) as error:  # the test's fault, which the function must not handle
            self.broken = error
            return None
        return run.steps[operation.step.key] if run.live else None

    async def _keep(self, run: Run, operation: Operation) -> None:
        step = operation.step
        if len(run.steps) >= MAX_STEPS:
            raise Stuck(f"the run of {run.function.id!r} has {MAX_STEPS:,} steps, the last {step.key!r}: is there a loop without an end?")
        if step.kind not in ("run", "invoke"):
            self._stubs.refuse(step.key, step.kind)
        match operation:
            case StepEnded():
                if step.error is not None:
                    run.failures.setdefault(step.key, []).append(step.error)
                run.steps[step.key] = step
            case Send(events=events):
                ids = [self._send(run, step.key, event, f"{run.id}/{step.key}/{n}") for n, event in enumerate(events)]
                run.steps[step.key] = msgspec.structs.replace(step, output=codec.dumps(ids))
            case Invoke(function_id=function_id, data=data):
                stubbed = await self._stubs.invoked(step, codec.loads(data), self._clock.now)
                run.steps[step.key] = stubbed or self._invoke(run, step, function_id, data)
            case WaitEvent(condition=condition):
                run.steps[step.key] = step
                self._wait_for_event(run, step, condition)
            case WaitSignal():
                run.steps[step.key] = step
                self._wait_for_signal(run, step)
            case TimeOut():
                if run.waits.pop(step.key, None) is not None:
                    run.steps[step.key] = step

    def _send(self, run: Run, step: str, new: NewEvent, key: str) -> str:
        """An event that a step sends, once; its id."""
        if new.id is not None and new.id in self._ids:
            return self._ids[new.id]
        event = self.event(new, SOURCE, {}, new.id or key)
        run.sent.append(Sent(id=event.id, name=event.name, data=codec.loads(new.data), step=step))
        self._arrive(event)
        return event.id

    def _invoke(self, run: Run, step: Step, function_id: str, data: bytes) -> Step:
        if function_id not in self._functions:
            raise DeclarationError(
                f"step {step.key!r} invokes {function_id!r}: say what that returns with steps={{{step.key!r}: …}}, or let it run"
                " too, with functions=[…]"
            )
        child = self.start(self._functions[function_id], self.event(NewEvent(INVOKED, data), SOURCE, {}, f"{run.id}/{step.key}"))
        child.parent, child.parent_key = run, step.key
        run.waits[step.key] = Wait("invoke", signal_hash(f"run {child.id}"), step.started_at, step.due_at)
        return msgspec.structs.replace(step, subject=child.id)

    def _wait_for_event(self, run: Run, step: Step, condition: Condition) -> None:
        """Wait, unless it has arrived already or is supplied for this."""
        wait = _from_now(Wait("event", condition.hash, run.started_at or 0, step.due_at, condition))
        run.waits[step.key] = wait
        self.asked.add(f"event {condition.name!r}")
        found = next((event for event in self._arrived if event.id != run.event.id and matches(wait, _row(event))), None)
        if found is not None:
            self._come(run, step.key, remembered(_row(found)))
            return
        fitting = (one for one in self.on_demand if one.event and not one.used and matches(wait, self._row_of_new(one.event)))
        supply = next(fitting, None)
        if supply is not None:
            self.supply(supply)

    def _wait_for_signal(self, run: Run, step: Step) -> None:
        name = step.subject or ""
        run.waits[step.key] = Wait("signal", signal_hash(name), step.started_at, step.due_at)
        self.asked.add(f"signal {name!r}")
        for supply in self.on_demand:
            if supply.event is None and not supply.used and supply.name == name:
                self.supply(supply)

    # What arrives.

    def supply(self, supply: Supply) -> None:
        """What a test supplies arrives."""
        if supply.event is not None:
            supply.used = self._arrive(self.event(supply.event, "test", {}, supply.event.id))
            return
        wanted, data = signal_hash(supply.name), codec.dumps(supply.data)
        for run in self.runs:
            for key in [key for key, wait in run.waits.items() if wait.match_hash == wanted]:
                self._come(run, key, data)
                supply.used = True

    def deliveries(self, event: EventRecord) -> tuple[NewDelivery, ...]:
        """What an event triggers."""
        return self._fanout.deliveries(event, event.data or b"null")

    def _arrive(self, event: EventRecord) -> bool:
        """An event is there: end what waits for it, cancel what it cancels, start what it triggers; whether any did."""
        row, used = _row(event), False
        self._arrived.append(event)
        for run in [run for run in self.runs if run.live]:
            for key in [key for key, wait in run.waits.items() if matches(wait, row)]:
                self._come(run, key, remembered(row))
                used = True
            if any(matches(wait, row) for wait in run.cancels):
                self.end(run, Decision("cancel", error=Failure("Cancelled", f"event {event.id} ({event.name}) arrived")))
                used = True
        for delivery in self.deliveries(event):
            used = True
            if delivery.skip_reason is None:
                self.start(self._functions[delivery.function_id], event, delivery.cancels)
        return used

    def _come(self, run: Run, key: str, output: bytes | None = None, error: Failure | None = None) -> None:
        """What a step waited for has come."""
        if run.waits.pop(key, None) is None:
            return
        status = "succeeded" if error is None else "failed"
        run.steps[key] = msgspec.structs.replace(run.steps[key], status=status, finished_at=self._clock.now, output=output, error=error)
        if not run.held:
            run.due_at = self._clock.now

    def _row_of_new(self, new: NewEvent) -> dict[str, Any]:
        at = self._clock.now
        return _row(EventRecord("", new.name, "test", "", new.occurred_at or at, at, b"{}", data=new.data))


def _from_now(wait: Wait) -> Wait:
    """A wait that sees what arrives in the very instant in which it begins: in a test, that may be all the time there is."""
    return msgspec.structs.replace(wait, since=wait.since - 1)


def _row(event: EventRecord) -> dict[str, Any]:
    """An event as the store's lookups give it."""
    return {**msgspec.structs.asdict(event), "body": event.data}
