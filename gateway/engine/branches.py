"""The tasks of one attempt, and when all of them can go no further: then the run is parked, and its worker is free.

A function may run its steps side by side, with `gather`, a TaskGroup or `create_task`. A task that has come to a step which
is not due waits here, and the attempt goes on as long as any other of its tasks does. A task with tasks of its own is taken
to wait for them. What runs beside a parked step without being a step may be interrupted, and runs again with the next attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Generator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from gateway.clock import Micros
from gateway.core.outcome import Suspended

PATIENCE_SECONDS = 10.0
# The end of a task reaches who waits for it by way of `gather`, `wait` and TaskGroup, a turn of the loop or two for each.
QUIET_TURNS = 20

current: ContextVar[Branches | None] = ContextVar("tidegate_branches", default=None)

Task = asyncio.Task[Any]


@dataclass(frozen=True, slots=True)
class Parked:
    """A task's step that is not due: until when, and for a wait which step it is."""

    due_at: Micros
    reason: str
    key: str | None


class Branches:
    """The tasks that have come from `root`. `suspend` is called once, when none of them can go on."""

    def __init__(self, root: Task, suspend: Callable[[], object], threads: int = 0) -> None:
        self._loop = root.get_loop()
        self._root = root
        self._suspend = suspend
        self._children: dict[Task, int] = {root: 0}
        self._parked: dict[Task, Parked] = {}
        self._busy = 0
        self._looking = False
        self._quiet = 0
        self._patience: asyncio.TimerHandle | None = None
        self.threads = threads
        self.suspended: Suspended | None = None
        self.closed = False

    def adopt(self, task: Task) -> None:
        """A task that one of these has made."""
        parent = asyncio.current_task(self._loop)
        parent = parent if parent in self._children else self._root
        self._children[task] = 0
        self._children[parent] = self._children.get(parent, 0) + 1
        task.add_done_callback(lambda done: self._ended(done, parent))

    def _ended(self, task: Task, parent: Task) -> None:
        self._children.pop(task, None)
        if parent in self._children:
            self._children[parent] -= 1
        self.look()

    @contextlib.contextmanager
    def busy(self) -> Generator[None]:
        """A step is being tried or committed."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            self.look()

    async def park(self, due_at: Micros, reason: str, key: str | None = None) -> None:
        """Wait for the attempt to end: the step is not due before `due_at`. Never returns."""
        task = asyncio.current_task()
        assert task is not None
        self._parked[task] = Parked(due_at, reason, key)
        self.look()
        try:
            await self._loop.create_future()
        finally:
            self._parked.pop(task, None)

    def look(self) -> None:
        """See, once what is about to happen has happened, whether any task can go on."""
        self._quiet = 0
        if self._parked and not self._looking and not self.closed:
            self._looking = True
            self._loop.call_soon(self._decide)

    def close(self) -> None:
        """No task begins a step any more; those that are left are cancelled."""
        self.closed = True
        if self._patience is not None:
            self._patience.cancel()
        for task in list(self._children):
            if task is not self._root:
                task.cancel()

    def interrupt(self) -> None:
        """Cancel the tasks in which a thread waits for its step."""
        for task in list(self._parked):
            task.cancel()

    def _decide(self) -> None:
        self._looking = False
        if self.closed or not self._parked or self._busy or len(self._parked) < self.threads:
            return
        if not all(task in self._parked or children for task, children in self._children.items()):
            self._patience = self._patience or self._loop.call_later(PATIENCE_SECONDS, self._lose_patience)
        elif len(self._children) > 1 and self._quiet < QUIET_TURNS:
            self._quiet += 1
            self._looking = True
            self._loop.call_soon(self._decide)
        else:
            self._stop()

    def _lose_patience(self) -> None:
        """A task that never ends, such as one that a library keeps for itself, must not hold the run."""
        self._patience = None
        if self._parked and not self._busy and not self.closed and len(self._parked) >= self.threads:
            self._stop()

    def _stop(self) -> None:
        first = min(self._parked.values(), key=lambda parked: parked.due_at)
        pending = tuple(parked.key for parked in self._parked.values() if parked.key is not None)
        self.suspended = Suspended(first.due_at, first.reason, pending)
        self.closed = True
        self._suspend()


def adopting(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any], **options: Any) -> Task:
    """A task factory for a worker's loop: tasks that an attempt makes belong to it."""
    task = asyncio.Task(coro, loop=loop, **options)
    branches = current.get()
    if branches is not None:
        branches.adopt(task)
    return task
