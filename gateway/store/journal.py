"""The journal: every change of state of a process, one writer, grouped commits.

A command is a frozen value of a class in `inbox`, `runs`, `admin` or `access`. The writer's thread drains what has queued,
executes it class by class in one transaction, commits once, and only then completes the callers' futures. A command that
fails does not fail its neighbours: the group is then repeated one by one. Repeating is always safe, because ids are chosen by
the caller and every write for a run carries its fence.

A gateway's loop and its writer share one interpreter, and each time one takes it from the other costs more than a
statement. So a loop gathers what it commits until a turn brings no more; and once it is `attach`ed, statements that only
compute are executed on it, while the writer's thread does what waits: for its turn, and for the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, ClassVar, Generic, TypeVar

import msgspec
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random_exponential

from gateway.errors import Overloaded, Unavailable
from gateway.store.database import Database, Transaction
from gateway.store.health import Health
from gateway.telemetry import Telemetry

R = TypeVar("R")
AnyFuture = Future[Any] | asyncio.Future[Any]
Entry = tuple["Command[Any]", AnyFuture]
Completion = tuple[AnyFuture, Any, Exception | None]

MAX_GROUP = 256
MAX_QUEUED = 4096
GATHER_SECONDS = 0.005
WAKE_SECONDS = 0.01
STALLED_SECONDS = 1.5
WATCH_SECONDS = 0.25


class Command(msgspec.Struct, Generic[R], frozen=True):
    """One change of state. `execute` applies a group of its class in order and returns a result for each.

    `wakes`: whether it may make a run due. `brief`: whether a group of these is sure to take milliseconds at most.
    """

    wakes: ClassVar[bool] = False
    brief: ClassVar[bool] = False

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[Any]) -> Sequence[Any]:
        """Apply `commands`, all of this class."""
        raise NotImplementedError


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, Unavailable) and error.passing


class Journal:
    """The one writer of a process. Bounded: when too much is queued, `submit` and `commit` raise Overloaded."""

    def __init__(self, database: Database, telemetry: Telemetry | None = None) -> None:
        self._database = database
        self.health = Health(telemetry or Telemetry())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gathered: list[Entry] = []
        self._queued: deque[Entry] = deque()
        self._arrived = threading.Condition()
        self._writing: list[Entry] = []
        self._writing_since: float | None = None
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
        return len(self._queued) + len(self._gathered)

    def submit(self, command: Command[R]) -> Future[R]:
        """Queue a command, from any thread; the future completes once it is committed and flushed.

        Raises Overloaded at once when the queue is full. The future raises Unavailable when the store is away.
        """
        future: Future[R] = Future()
        self._admit()
        with self._arrived:
            self._queued.append((command, future))
            self._arrived.notify()
        return future

    def commit(self, command: Command[R]) -> asyncio.Future[R]:
        """As `submit`, from a coroutine."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._admit()
        self._gathered.append((command, future))
        if len(self._gathered) == 1:
            loop.call_soon(self._gather, loop, 0, loop.time() + GATHER_SECONDS)
        return future

    def attach(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Execute brief statements on this loop, which must run until it is detached (None) or the journal closed."""
        self._loop = loop

    async def watch(self) -> None:
        """For as long as it runs, answer with Unavailable what coroutines of this loop have waited for STALLED_SECONDS.

        What is being written may still be committed: the same command, repeated, then finds itself there.
        """
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            self._refuse_stalled()

    def _refuse_stalled(self) -> None:
        since = self._writing_since
        if since is None or time.monotonic() - since < STALLED_SECONDS:
            return
        error = Unavailable("the database has not answered in time", state=self._database.late)
        self.health.failed(error)
        with self._arrived:
            late = [entry for entry in self._queued if isinstance(entry[1], asyncio.Future)]
            self._queued = deque(entry for entry in self._queued if not isinstance(entry[1], asyncio.Future))
        late += [entry for entry in self._writing if isinstance(entry[1], asyncio.Future)]
        _set_all([(future, None, error) for _, future in late])

    def close(self) -> None:
        """Write what is queued, then stop. Not to be called on an attached loop: its statements are still to run there."""
        with self._arrived:
            self._closing = True
        self._hand_over()
        self._threads[0].join()
        self._wake_due.set()
        self._threads[1].join()

    def _admit(self) -> None:
        if self._closing or self.queued >= MAX_QUEUED:
            raise Overloaded()
        refusal = self.health.refusal()
        if refusal is not None:
            raise refusal

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
            self._writing, self._writing_since = group, time.monotonic()
            self._commit(group)
            self._writing, self._writing_since = [], None
            self._database.after_commit()

    def _commit(self, group: list[Entry]) -> None:
        commands = [command for command, _ in group]
        try:
            results = self._execute(commands)
        except Unavailable as error:
            self.health.failed(error)
            _complete([(future, None, error) for _, future in group])
        except Exception as error:
            if len(group) > 1:
                for one in group:
                    self._commit([one])
            else:
                _complete([(group[0][1], None, error)])
        else:
            self.health.worked()
            _complete([(future, result, None) for (_, future), result in zip(group, results, strict=True)])
            if any(command.wakes for command in commands):
                self._wake_due.set()

    @retry(retry=retry_if_exception(_may_pass), stop=stop_after_attempt(3), wait=wait_random_exponential(0.05, 0.3), reraise=True)
    def _execute(self, commands: list[Command[Any]]) -> list[Any]:
        """The results of a committed group. A connection that broke is tried again: commands may be repeated."""
        with self._database.transaction() as tx:
            return self._where_it_is_cheap(commands, lambda: _statements(tx, commands))

    def _where_it_is_cheap(self, commands: list[Command[Any]], statements: Callable[[], list[Any]]) -> list[Any]:
        loop = self._loop
        if loop is None or self._database.statements_wait or not all(command.brief for command in commands):
            return statements()
        done: Future[list[Any]] = Future()
        loop.call_soon_threadsafe(_run_into, done, statements)
        return done.result()

    def _wake(self) -> None:
        """Wake-ups, after the commit and apart from it; at most one in WAKE_SECONDS."""
        while True:
            self._wake_due.wait()
            self._wake_due.clear()
            if self._closing:
                return
            self._database.wake()
            time.sleep(WAKE_SECONDS)


def _statements(tx: Transaction, commands: list[Command[Any]]) -> list[Any]:
    """The results of a group, each class's commands executed at once."""
    kinds: dict[type[Command[Any]], list[int]] = {}
    for index, command in enumerate(commands):
        kinds.setdefault(type(command), []).append(index)
    results: list[Any] = [None] * len(commands)
    for kind, indexes in kinds.items():
        found = kind.execute(tx, [commands[index] for index in indexes])
        for index, result in zip(indexes, found, strict=True):
            results[index] = result
    return results


def _run_into(done: Future[list[Any]], statements: Callable[[], list[Any]]) -> None:
    try:
        done.set_result(statements())
    except BaseException as error:
        done.set_exception(error)


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
        _set(completion)


def _set(completion: Completion) -> None:
    future, result, error = completion
    if future.done():  # its caller has given up, or was told that the store does not answer
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
