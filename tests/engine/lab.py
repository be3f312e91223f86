"""A real worker in this process, over a real database, with functions of the test's own and a clock that can be moved."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from gateway import codec
from gateway.clock import SECOND
from gateway.core.spec import Manifest
from gateway.engine.local import LocalInvoker
from gateway.engine.worker import Worker
from gateway.ids import new_id
from gateway.ingest.fanout import Fanout
from gateway.sdk.function import Function
from gateway.store.inbox import Accept, EventRecord
from gateway.store.journal import Command
from gateway.store.offers import Publish
from gateway.telemetry import Telemetry
from tests.conftest import Store

FINAL = ("succeeded", "failed", "cancelled")


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test that is a coroutine."""

    @functools.wraps(test)
    def run(*arguments: Any, **fixtures: Any) -> None:
        asyncio.run(test(*arguments, **fixtures))

    return run


class Lab:
    """`store` with the given functions published; workers are started by `working`."""

    def __init__(self, store: Store, *functions: Function[Any]) -> None:
        self.store = store
        self.offset = 0
        self.facts: list[tuple[str, dict[str, Any]]] = []
        self.publish(*functions)

    def publish(self, *functions: Function[Any]) -> None:
        """From now on these functions, and no others, are there; as after a deploy."""
        found = [one for function in functions for one in (function, function.failure) if one is not None]
        self.functions = {one.spec.queued_as: one for one in found}
        manifest = Manifest(specs=tuple(one.spec for one in found))
        self.store.do(Publish("local", manifest, self.clock()))
        self.fanout = Fanout({"local": manifest})

    def clock(self) -> int:
        return time.time_ns() // 1000 + self.offset

    def pass_time(self, seconds: float) -> None:
        """Move the clock on, and let the workers know."""
        self.offset += int(seconds * SECOND)
        self.store.database.wake()

    def worker(self, **options: Any) -> Worker:
        telemetry = Telemetry()
        telemetry.listeners.append(lambda name, facts: self.facts.append((name, facts)))
        return Worker(
            id=new_id("wrk"),
            database=self.store.database,
            journal=self.store.journal,
            invoker=LocalInvoker(self.functions, self.clock),
            specs={name: one.spec for name, one in self.functions.items()},
            clock=self.clock,
            telemetry=telemetry,
            shutdown_seconds=0,
            **options,
        )

    @contextlib.asynccontextmanager
    async def working(self, **options: Any) -> AsyncIterator[Worker]:
        """A worker for as long as the block lasts."""
        worker = self.worker(**options)
        task = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            worker.stop()
            await task

    async def commit(self, command: Command[Any]) -> Any:
        return await self.store.journal.commit(command)

    async def send(self, name: str, data: Any = None, id: str | None = None) -> list[str]:
        """An event comes in; returns the ids of its runs."""
        now, event_id = self.clock(), new_id("evt")
        raw = codec.dumps(data)
        event = EventRecord(event_id, name, "test", id or event_id, now, now, b"{}", data=raw)
        deliveries = self.fanout.deliveries(event, raw)
        await self.commit(Accept(event, deliveries))
        return [delivery.run_id for delivery in deliveries if delivery.run_id is not None]

    async def until(self, condition: Any, seconds: float = 20) -> Any:
        """What `condition` gives once it is true of the database."""
        deadline = time.monotonic() + seconds
        while not (found := await asyncio.to_thread(condition)):
            assert time.monotonic() < deadline, f"still not so after {seconds} s"
            await asyncio.sleep(0.01)
        return found

    async def ended(self, run_id: str) -> dict[str, Any]:
        """A run once it is final, its output and error as plain values."""
        await self.until(lambda: self.store.reads.run(run_id)["status"] in FINAL)
        return self.run(run_id)

    async def parked(self, run_id: str, reason: str) -> None:
        """Once a run waits for this reason."""

        def waits() -> bool:
            run = self.store.reads.run(run_id)
            assert run["status"] not in FINAL, f"it has ended: {dict(run)}"
            return run["status"] == "waiting" and run["reason"] == reason

        await self.until(waits)

    def run(self, run_id: str) -> dict[str, Any]:
        row = dict(self.store.reads.run(run_id))
        for name in ("output", "error"):
            row[name] = None if row[name] is None else codec.loads(bytes(row[name]))
        return row

    def runs(self, function_id: str) -> list[dict[str, Any]]:
        rows = self.store.database.read("select id from runs where function_id = ? order by id", [function_id])
        return [self.run(row["id"]) for row in rows]

    def steps(self, run_id: str) -> dict[str, str]:
        return {row["key"]: row["status"] for row in self.store.reads.steps(run_id)}

    def said(self, run_id: str) -> list[str]:
        return [row["message"] for row in self.store.reads.logs(run_id, (0, 0), 100)]
