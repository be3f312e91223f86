"""A worker that dies at the commit that was chosen for it: right before, or right after."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Literal

from gateway.clock import system_clock
from gateway.engine.local import LocalInvoker
from gateway.engine.worker import Worker
from gateway.store.database import Database, open_database
from gateway.store.threaded import ThreadJournal
from gateway.telemetry import Telemetry
from tests.crash import programs

Side = Literal["before", "after"]
Death = tuple[int, Side]


class Watched:
    """A transaction that knows whether it has changed anything but leases."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.changed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        found = self._real.rows(sql, parameters)
        self.changed |= bool(found) and not sql.startswith("select")
        return found


def _noting(name: str) -> Any:
    def call(self: Watched, table: str, *arguments: Any) -> Any:
        self.changed |= table != "processes" and bool(arguments[-1])
        return getattr(self._real, name)(table, *arguments)

    return call


for _name in ("insert", "insert_new", "update", "write", "delete"):
    setattr(Watched, _name, _noting(_name))


class Mortal:
    """A database that kills its process right before or after the commit that is chosen, of those that change something."""

    def __init__(self, real: Database, death: Death | None) -> None:
        self._real = real
        self._death = death
        self._commits = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    @contextlib.contextmanager
    def transaction(self) -> Generator[Any]:
        with self._real.transaction() as tx:
            watched = Watched(tx)
            yield watched
            self._commits += watched.changed
            self._die(watched, "before")
        self._die(watched, "after")

    def _die(self, watched: Watched, side: Side) -> None:
        if watched.changed and self._death == (self._commits, side):
            os.kill(os.getpid(), signal.SIGKILL)


def live(url: str, effects: Path, worker_id: str, death: Death | None) -> None:
    """One worker's life, in a process of its own."""
    programs.begin(effects)
    database: Any = Mortal(open_database(url), death)
    functions = {one.spec.queued_as: one for one in programs.all_functions()}
    worker = Worker(
        id=worker_id,
        database=database,
        journal=ThreadJournal(database),
        invoker=LocalInvoker(functions, system_clock),
        specs={name: one.spec for name, one in functions.items()},
        telemetry=Telemetry(),
    )
    asyncio.run(worker.run())
