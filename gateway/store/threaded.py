"""The journal of a worker: its writer is a thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from gateway.store.database import Database
from gateway.store.journal import AnyFuture, Command, Journal, Outcome, R, complete
from gateway.store.writing import MAX_GROUP, Waker, write
from gateway.telemetry import Telemetry

GATHER_SECONDS = 0.005

Entry = tuple[Command[Any], AnyFuture]


class ThreadJournal(Journal):
    """A loop gathers what it commits until a turn brings no more: each time loop and writer hand each other the interpreter
    costs more than a statement."""

    def __init__(self, database: Database, telemetry: Telemetry | None = None) -> None:
        super().__init__(telemetry)
        self._database = database
        self._gathered: list[Entry] = []
        self._queued: deque[Entry] = deque()
        self._arrived = threading.Condition()
        self._waker = Waker(database)
        self._thread = threading.Thread(target=self._write, name="journal", daemon=True)
        self._thread.start()

    @property
    def queued(self) -> int:
        return len(self._queued) + len(self._gathered)

    def submit(self, command: Command[R]) -> Future[R]:
        future: Future[R] = Future()
        self._admit()
        with self._arrived:
            self._queued.append((command, future))
            self._arrived.notify()
        return future

    def commit(self, command: Command[R]) -> asyncio.Future[R]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._admit()
        self._gathered.append((command, future))
        if len(self._gathered) == 1:
            loop.call_soon(self._gather, loop, 0, loop.time() + GATHER_SECONDS)
        return future

    def close(self) -> None:
        with self._arrived:
            self._closing = True
        self._hand_over()
        self._thread.join()
        self._waker.close()

    def _gather(self, loop: asyncio.AbstractEventLoop, seen: int, deadline: float) -> None:
        count = len(self._gathered)
        if seen != count < MAX_GROUP and loop.time() < deadline:
            loop.call_soon(self._gather, loop, count, deadline)
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        with self._arrived:
            gathered, self._gathered = self._gathered, []
            self._queued += gathered
            self._arrived.notify()

    def _write(self) -> None:
        while True:
            with self._arrived:
                while not self._queued and not self._closing:
                    self._arrived.wait()
                group = [self._queued.popleft() for _ in range(min(len(self._queued), MAX_GROUP))]
            if not group:
                return
            commands = [command for command, _ in group]
            outcomes = write(self._database, commands)
            self.health.note(outcomes)
            _complete([future for _, future in group], outcomes)
            self._waker.committed(commands)
            self._database.after_commit(len(commands))


def _complete(futures: Sequence[AnyFuture], outcomes: Sequence[Outcome]) -> None:
    """Complete futures from the writer's thread: a loop's all at once."""
    own: dict[asyncio.AbstractEventLoop, tuple[list[AnyFuture], list[Outcome]]] = {}
    for future, outcome in zip(futures, outcomes, strict=True):
        if isinstance(future, asyncio.Future):
            of_loop = own.setdefault(future.get_loop(), ([], []))
            of_loop[0].append(future)
            of_loop[1].append(outcome)
        else:
            complete([future], [outcome])
    for loop, (waiting, given) in own.items():
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits any more
            loop.call_soon_threadsafe(complete, waiting, given)
