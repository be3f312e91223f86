"""What a run's steps do, as commands of the journal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from gateway import codec
from gateway.clock import Clock, Micros
from gateway.core.outcome import Failure
from gateway.core.steps import Condition, Invoke, NewEvent, Operation, Send, Step, StepEnded, TimeOut, WaitEvent, WaitSignal
from gateway.core.waits import fulfils, hash_at, run_hash, signal_hash
from gateway.engine.invoker import MAX_STEP_BYTES
from gateway.engine.offered import Offered
from gateway.errors import DeclarationError, Unavailable
from gateway.ids import new_id
from gateway.sdk.function import INVOKED
from gateway.sdk.step import Arrived
from gateway.store.database import Database
from gateway.store.inbox import Accept, EventRecord
from gateway.store.journal import Command, Journal
from gateway.store.runs import Claimed
from gateway.store.steps import Dispatch, GiveUp, Remember, Try, stored_step
from gateway.store.waits import EndWaits, Lookups, Wait, WaitEnd

R = TypeVar("R")

SOURCE = "functions"
AGAIN_SECONDS = 1.0


class Recorder:
    """Records the operations of the runs that a worker holds."""

    def __init__(self, journal: Journal, database: Database, offered: Offered, clock: Clock, max_step_bytes: int = MAX_STEP_BYTES) -> None:
        self._journal = journal
        self._database = database
        self._lookups = Lookups(database)
        self._offered = offered
        self._clock = clock
        self._max_step_bytes = max_step_bytes

    async def record(self, run: Claimed, operation: Operation, fresh: bool) -> Step | None:
        """The step as it is recorded; None when the run has another holder by now. Waits while the store is away."""
        match operation:
            case StepEnded(step=step):
                failed = None if step.error is None else Try(step.attempts, step.started_at, self._clock(), step.error)
                return step if await self._commit(Remember(run.run_id, run.fence, step, fresh, failed)) else None
            case Send(step=step, events=events):
                return await self._send(run, step, events)
            case Invoke():
                return await self._invoke(run, operation)
            case WaitEvent(step=step, condition=condition):
                return await self._wait_for_event(run, step, condition, fresh)
            case WaitSignal(step=step):
                wait = Wait("signal", signal_hash(step.subject or ""), step.started_at, step.due_at)
                return step if await self._commit(Remember(run.run_id, run.fence, step, True, wait=wait)) else None
            case TimeOut(step=step):
                return await self._commit(GiveUp(run.run_id, run.fence, step))

    async def _send(self, run: Claimed, step: Step, events: tuple[NewEvent, ...]) -> Step | None:
        now = self._clock()
        accepts = tuple(self.accept(event, f"{run.run_id}/{step.key}/{n}", now, run.traceparent) for n, event in enumerate(events))
        return await self._commit(Dispatch(run.run_id, run.fence, step, accepts))

    async def _invoke(self, run: Claimed, invoke: Invoke) -> Step | None:
        fanout, step = self._offered.fanout, invoke.step
        if invoke.function_id not in fanout.specs:
            raise DeclarationError(f"step.invoke({step.key!r}): there is no function {invoke.function_id!r}")
        child = msgspec.structs.replace(fanout.run(invoke.function_id), parent_id=run.run_id, parent_key=step.key)
        event = self._event(NewEvent(INVOKED, invoke.data), child.run_id or "", self._clock(), run.traceparent)
        step = msgspec.structs.replace(step, subject=child.run_id)
        wait = Wait("invoke", run_hash(child.run_id or ""), step.started_at, step.due_at)
        return await self._commit(Dispatch(run.run_id, run.fence, step, (Accept(event, (child,)),), wait=wait))

    async def _wait_for_event(self, run: Claimed, step: Step, condition: Condition, fresh: bool) -> Step | None:
        """Commit first and look afterwards, as whoever brings the event does: one of the two sees the other."""
        wait = Wait("event", condition.hash, run.created_at, step.due_at, condition)
        if fresh and not await self._commit(Remember(run.run_id, run.fence, step, True, wait=wait)):
            return None
        found = await self.look(wait)
        if found is None:
            return step
        await self._commit(EndWaits((self.end(run.run_id, step.key, wait, found),)))
        return await self._read(stored_step, self._database, run.run_id, step.key)

    def end(self, run_id: str, key: str, wait: Wait, event: Mapping[str, Any]) -> WaitEnd:
        """What an event makes of a wait: its end, or the error that the event is more than a step may keep."""
        output, now = remembered(event), self._clock()
        if len(output) <= self._max_step_bytes:
            return WaitEnd(run_id, key, wait.match_hash, now, output)
        said = f"event {event['id']} is {len(output):,} bytes, and a step keeps at most {self._max_step_bytes:,}"
        return WaitEnd(
            run_id, key, wait.match_hash, now, error=Failure("StepTooLarge", f"{said} (TIDEGATE_MAX_STEP_BYTES raises the limit)")
        )

    async def look(self, wait: Wait) -> Mapping[str, Any] | None:
        """The first event that has arrived and that this wait is for, if any."""
        return await self._read(self._look, wait)

    def _look(self, wait: Wait) -> Mapping[str, Any] | None:
        condition = wait.condition
        assert condition is not None
        kept = self._lookups.arrived(wait.match_hash, wait.since)
        others = self._lookups.unkept(condition.name, condition.path, wait.since)
        found = [next((row for row in self._lookups.events(ids) if matches(wait, row)), None) for ids in (kept, others)]
        return min((row for row in found if row is not None), key=lambda row: row["id"], default=None)

    def accept(self, event: NewEvent, key: str, now: Micros, traceparent: str | None, source: str = SOURCE) -> Accept:
        """The command that keeps an event which a function sends, with its runs."""
        made = self._event(event, event.id or key, now, traceparent, source)
        return Accept(made, self._offered.fanout.deliveries(made, event.data))

    def _event(self, event: NewEvent, key: str, now: Micros, traceparent: str | None, source: str = SOURCE) -> EventRecord:
        return EventRecord(
            id=new_id("evt"),
            name=event.name,
            source=source,
            key=key,
            occurred_at=event.occurred_at or now,
            received_at=now,
            attributes=b"{}",
            data=event.data,
            traceparent=traceparent,
        )

    async def _read(self, read: Callable[..., R], *arguments: Any) -> R:
        while True:
            try:
                return await asyncio.to_thread(read, *arguments)
            except Unavailable:
                await asyncio.sleep(AGAIN_SECONDS)

    async def _commit(self, command: Command[R]) -> R:
        while True:
            try:
                return await self._journal.commit(command)
            except Unavailable:
                # The command may be repeated: its ids are chosen, and the fence tells whether it may still be written.
                await asyncio.sleep(AGAIN_SECONDS)


def matches(wait: Wait, row: Mapping[str, Any]) -> bool:
    """Whether a wait is for an event, given as a row of `Lookups.events`."""
    condition = wait.condition
    if condition is None or row["name"] != condition.name or row["id"] in condition.exclude or row["received_at"] < wait.since:
        return False
    if wait.until is not None and row["received_at"] > wait.until:
        return False
    try:
        arrived = {
            "id": row["id"],
            "name": row["name"],
            "source": row["source"],
            "attributes": codec.loads(bytes(row["attributes"])),
            "data": codec.loads_text(codec.member(bytes(row["body"] or b""), row["data_path"])),
        }
    except (ValueError, RecursionError):
        return False
    return hash_at(arrived, condition.path) == wait.match_hash and fulfils(condition.if_, condition.variables or {}, arrived)


def remembered(row: Mapping[str, Any]) -> bytes:
    """An event as a run remembers it."""
    return msgspec.json.encode(
        Arrived(
            id=row["id"],
            name=row["name"],
            source=row["source"],
            occurred_at=row["occurred_at"],
            received_at=row["received_at"],
            attributes=msgspec.Raw(bytes(row["attributes"])),
            data=msgspec.Raw(codec.member(bytes(row["body"] or b"null"), row["data_path"])),
        )
    )
