"""What follows from what was committed: waits end with what has arrived, and the ends of runs are told.

Every worker does this; the row that is deleted says who has. It looks after each wake-up, and now and then without one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import msgspec

from gateway import codec
from gateway.clock import SECOND, Clock
from gateway.core.outcome import Failure
from gateway.core.steps import NewEvent
from gateway.core.waits import hash_at, run_hash
from gateway.engine.offered import Offered
from gateway.engine.recorder import Recorder, matches
from gateway.errors import Unavailable
from gateway.store.admin import CancelRun
from gateway.store.database import Database
from gateway.store.endings import Ending, Tell, untold
from gateway.store.journal import Command, Journal
from gateway.store.waits import Arrival, EndWaits, Horizon, Lookups, Settle, Wait, WaitEnd, decode_condition
from gateway.telemetry import Telemetry

POLL_SECONDS = 1.0
PAUSE_SECONDS = 0.02
OVERLAP = 60 * SECOND  # how long before a path was known a transaction may have begun that did not know it
OWN_EVENTS = "tidegate/function."


class Resolver:
    """Ends waits, tells of endings, settles paths."""

    def __init__(
        self, journal: Journal, database: Database, offered: Offered, recorder: Recorder, telemetry: Telemetry, clock: Clock
    ) -> None:
        self._journal = journal
        self._database = database
        self._lookups = Lookups(database)
        self._offered = offered
        self._recorder = recorder
        self._telemetry = telemetry
        self._clock = clock
        self._awake = asyncio.Event()

    def wake(self) -> None:
        """Something was committed."""
        self._awake.set()

    async def run(self) -> None:
        """Look for as long as this runs."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._awake.wait()
            self._awake.clear()
            try:
                await self.look()
            except Unavailable:
                pass
            except Exception as error:  # what cannot be done must not hold up what can
                self._telemetry.emit("worker.astray", error=repr(error), exception=error)
                await asyncio.sleep(POLL_SECONDS)
            await asyncio.sleep(PAUSE_SECONDS)

    async def look(self) -> None:
        """Do what there is to do, once."""
        todo = await asyncio.to_thread(self._lookups.todo)
        if todo["paths"]:
            await self._settle()
        if todo["arrivals"] or todo["paths"]:
            await self._match()
        if todo["endings"]:
            endings = await asyncio.to_thread(untold, self._database)
            telling = list[Tell]()
            for ending in endings:
                with self._one_by_one("the end of", ending.run_id):
                    telling.append(self._telling(ending))
            await self._commit(telling)

    async def _match(self) -> None:
        while True:
            unseen = await asyncio.to_thread(self._lookups.unseen)
            if not unseen:
                return
            ends, cancels = await asyncio.to_thread(self._matching, unseen)
            # What follows from an arrival first, and only then it counts as seen.
            await self._commit(cancels)
            await self._commit([EndWaits(tuple(ends), tuple(unseen))])

    def _matching(self, unseen: Sequence[Arrival]) -> tuple[list[WaitEnd], list[CancelRun]]:
        """What ends because of arrivals: waits, and runs that are to be cancelled."""
        hashes: dict[str, list[bytes]] = {}
        for arrival in unseen:
            hashes.setdefault(arrival.event_id, []).append(arrival.match_hash)
        ends, cancels = list[WaitEnd](), list[CancelRun]()
        for event in self._lookups.events(sorted(hashes)):
            for row in self._lookups.waiting(hashes[event["id"]]):
                with self._one_by_one("wait", f"{row['run_id']} {row['key']}"):
                    self._end(row, event, ends, cancels)
        return ends, cancels

    def _end(self, row: Mapping[str, Any], event: Mapping[str, Any], ends: list[WaitEnd], cancels: list[CancelRun]) -> None:
        wait = wait_of(row)
        if not matches(wait, event):
            return
        if wait.kind == "cancel":
            cancels.append(CancelRun(row["run_id"], self._clock(), f"event {event['id']} ({event['name']}) arrived"))
        else:
            ends.append(self._recorder.end(row["run_id"], row["key"], wait, event))

    @contextlib.contextmanager
    def _one_by_one(self, what: str, name: str) -> Generator[None]:
        """What goes wrong with one must not hold up the others."""
        try:
            yield
        except Unavailable:
            raise
        except Exception as error:
            self._telemetry.emit("worker.astray", error=f"{what} {name}: {error!r}", exception=error)

    async def _settle(self) -> None:
        """Find what was committed by transactions that did not know a path yet, once none of them is left."""
        paths = await asyncio.to_thread(self._lookups.unsettled)
        horizon = await self._journal.commit(Horizon(tuple((path["name"], path["path"]) for path in paths if path["mark"] == 0)))
        for path in paths:
            if 0 < path["mark"] <= horizon:
                await self._commit([await asyncio.to_thread(self._settling, path)])

    def _settling(self, path: Mapping[str, Any]) -> Settle:
        name, where = path["name"], path["path"]
        arrivals = list[Arrival]()
        for row in self._lookups.events(self._lookups.named(name, path["created_at"] - OVERLAP)):
            with contextlib.suppress(ValueError, RecursionError):
                data = codec.loads(codec.member(bytes(row["body"] or b""), row["data_path"]))
                found = hash_at({"name": name, "data": data}, where)
                if found is not None:
                    arrivals.append(Arrival(found, row["id"]))
        return Settle(name, where, tuple(arrivals))

    def _telling(self, ending: Ending) -> Tell:
        now = self._clock()
        return Tell(ending.run_id, ending.event_id, now, self._to_parent(ending), self._to_handler(ending), self._as_event(ending))

    def _to_parent(self, ending: Ending) -> WaitEnd | None:
        if ending.parent_id is None or ending.parent_key is None:
            return None
        parent = (ending.parent_id, ending.parent_key, run_hash(ending.run_id), self._clock())
        if ending.outcome == "succeeded":
            return WaitEnd(*parent, ending.output)
        error = msgspec.json.decode(ending.error, type=Failure) if ending.error else Failure("Cancelled", "it was cancelled")
        error = Failure(error.type, f"run {ending.run_id} of {ending.function_id!r}: {error.message}", error.traceback)
        return WaitEnd(*parent, error=error)

    def _to_handler(self, ending: Ending) -> Any:
        fanout = self._offered.fanout
        spec = fanout.specs.get(ending.function_id)
        if ending.outcome != "failed" or spec is None or spec.on_failure not in fanout.specs:
            return None
        return msgspec.structs.replace(fanout.run(spec.on_failure), parent_id=ending.run_id)

    def _as_event(self, ending: Ending) -> Any:
        """The event that tells of an end; of runs that such events triggered there is none, or it would never stop."""
        what = {"succeeded": "finished"}.get(ending.outcome, ending.outcome)
        name = f"{OWN_EVENTS}{what}"
        if ending.event_name.startswith((f"{OWN_EVENTS}f", f"{OWN_EVENTS}c")):
            return None
        if what == "finished" and not self._offered.fanout.anyone_listens(name):
            return None
        data = {
            "run_id": ending.run_id,
            "function_id": ending.function_id,
            "event": {"id": ending.event_id, "name": ending.event_name},
            "output": msgspec.Raw(ending.output) if ending.output else None,
            "error": msgspec.Raw(ending.error) if ending.error else None,
        }
        key = f"{ending.run_id} {ending.ended_at}"
        return self._recorder.accept(NewEvent(name, msgspec.json.encode(data)), key, self._clock(), None, source="tidegate")

    async def _commit(self, commands: Sequence[Command[Any]]) -> None:
        """Commit these, in order; one that fails does not fail the others."""
        done = await asyncio.gather(*(self._journal.commit(command) for command in commands), return_exceptions=True)
        for error in done:
            if isinstance(error, BaseException):
                raise error


def wait_of(row: Mapping[str, Any]) -> Wait:
    """A wait from its row."""
    condition = decode_condition(bytes(row["condition"])) if row["condition"] else None
    return Wait(row["kind"], bytes(row["match_hash"]), row["since"], row["until"], condition)
