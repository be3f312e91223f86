"""The journal: every change of state of a process, one writer, grouped commits.

A command is a frozen value of a class in `inbox`, `runs` or `admin`. The writer's thread drains what has queued, executes it
class by class in one transaction, commits once, and only then completes the callers' futures. A command that fails does
not fail its neighbours: the group is then repeated one by one. Repeating is always safe, because ids are chosen by the
caller and every write for a run carries its fence.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, ClassVar, Generic, TypeVar

from gateway.errors import Overloaded, Unavailable
from gateway.store.database import Database, Transaction

R = TypeVar("R")
AnyFuture = Future[Any] | asyncio.Future[Any]
Completion = tuple[AnyFuture, Any, Exception | None]

MAX_GROUP = 256
MAX_QUEUED = 4096
WAKE_SECONDS = 0.01
TRIES = 3
TRY_AGAIN_SECONDS = 0.1


class Command(Generic[R]):
    """One change of state. `execute` applies a group of its class in order and returns a result for each."""

    wakes: ClassVar[bool] = False

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[Any]) -> Sequence[Any]:
        """Apply `commands`, all of this class."""
        raise NotImplementedError


class Journal:
    """The one writer of a process. Bounded: when too much is queued, `submit` raises Overloaded."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queued: deque[tuple[Command[Any], AnyFuture]] = deque()
        self._arrived = threading.Condition()
        self._closing = False
        self._wake_due = threading.Event()
        self._threads = [
            threading.Thread(target=self._write, name="journal", daemon=True),
            threading.Thread(target=self._wake, name="wake", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def queued(self) -> int:
        """How many commands wait to be written."""
        return len(self._queued)

    def submit(self, command: Command[R]) -> Future[R]:
        """Queue a command, from any thread; the future completes once it is committed and flushed.

        Raises Overloaded at once when the queue is full. The future raises Unavailable when the store is away.
        """
        future: Future[R] = Future()
        self._enqueue(command, future)
        return future

    def commit(self, command: Command[R]) -> asyncio.Future[R]:
        """As `submit`, from a coroutine; a group's futures are completed by one call into its loop, not one each."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._enqueue(command, future)
        return future

    def _enqueue(self, command: Command[Any], future: AnyFuture) -> None:
        with self._arrived:
            if self._closing or len(self._queued) >= MAX_QUEUED:
                raise Overloaded()
            self._queued.append((command, future))
            if len(self._queued) == 1:
                self._arrived.notify()

    def close(self) -> None:
        """Write what is queued, then stop."""
        with self._arrived:
            self._closing = True
            self._arrived.notify()
        self._threads[0].join()
        self._wake_due.set()
        self._threads[1].join()

    def _write(self) -> None:
        while True:
            with self._arrived:
                while not self._queued and not self._closing:
                    self._arrived.wait()
                group = [self._queued.popleft() for _ in range(min(len(self._queued), MAX_GROUP))]
            if not group:
                return
            self._commit(group)
            self._database.after_commit()

    def _commit(self, group: list[tuple[Command[Any], AnyFuture]]) -> None:
        commands = [command for command, _ in group]
        try:
            results = self._execute(commands)
        except Exception as error:
            if len(group) > 1 and not isinstance(error, Unavailable):
                for one in group:
                    self._commit([one])
                return
            _complete([(future, None, error) for _, future in group])
            return
        _complete([(future, result, None) for (_, future), result in zip(group, results, strict=True)])
        if any(command.wakes for command in commands):
            self._wake_due.set()

    def _execute(self, commands: list[Command[Any]]) -> list[Any]:
        """The results of a committed group. A connection that broke is tried again: commands may be repeated."""
        for attempt in range(TRIES):
            try:
                return self._execute_once(commands)
            except Unavailable:
                if attempt == TRIES - 1:
                    raise
                time.sleep(TRY_AGAIN_SECONDS * attempt)
        raise AssertionError

    def _execute_once(self, commands: list[Command[Any]]) -> list[Any]:
        kinds: dict[type[Command[Any]], list[int]] = {}
        for index, command in enumerate(commands):
            kinds.setdefault(type(command), []).append(index)
        results: list[Any] = [None] * len(commands)
        with self._database.transaction() as tx:
            for kind, indexes in kinds.items():
                found = kind.execute(tx, [commands[index] for index in indexes])
                for index, result in zip(indexes, found, strict=True):
                    results[index] = result
        return results

    def _wake(self) -> None:
        """Wake-ups, after the commit and apart from it; at most one in WAKE_SECONDS."""
        while True:
            self._wake_due.wait()
            self._wake_due.clear()
            if self._closing:
                return
            self._database.wake()
            time.sleep(WAKE_SECONDS)


def _complete(completions: Sequence[Completion]) -> None:
    """Complete futures from the writer's thread: a loop's all at once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Completion]] = {}
    for completion in completions:
        future = completion[0]
        if isinstance(future, asyncio.Future):
            by_loop.setdefault(future.get_loop(), []).append(completion)
        else:
            _set(completion)
    for loop, own in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits any more
            loop.call_soon_threadsafe(_set_all, own)


def _set_all(completions: Sequence[Completion]) -> None:
    for completion in completions:
        if not completion[0].cancelled():
            _set(completion)


def _set(completion: Completion) -> None:
    future, result, error = completion
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
