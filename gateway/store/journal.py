"""The journal: every change of state of a process goes through its one writer, in grouped commits.

A command is a frozen value of a class in `inbox`, `runs`, `admin` or `access`. Repeating one is always safe, because ids are
chosen by the caller and every write for a run carries its fence.

A worker's writer is a thread (`ThreadJournal`). A gateway's is a process of its own (`ProcessJournal`): two busy threads of one
interpreter take it from each other all the time, and both become slow.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from gateway.errors import Overloaded
from gateway.store.database import Transaction
from gateway.store.health import Health
from gateway.telemetry import Telemetry

R = TypeVar("R")
AnyFuture = Future[Any] | asyncio.Future[Any]
Outcome = tuple[Any, Exception | None]  # a result, or why there is none

MAX_QUEUED = 4096


class Command(msgspec.Struct, Generic[R], frozen=True, tag_field="command", tag=True):
    """One change of state. `execute` applies a group of its class in order and returns a result for each.

    `wakes`: whether it may make a run due.
    """

    wakes: ClassVar[bool] = False

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[Any]) -> Sequence[Any]:
        """Apply `commands`, all of this class."""
        raise NotImplementedError


class Journal(ABC):
    """Takes commands for the one writer. Bounded: when too much is queued, `submit` and `commit` raise Overloaded."""

    def __init__(self, telemetry: Telemetry | None = None) -> None:
        self.health = Health(telemetry or Telemetry())
        self._closing = False

    @property
    @abstractmethod
    def queued(self) -> int:
        """How many commands are not committed yet."""

    @abstractmethod
    def submit(self, command: Command[R]) -> Future[R]:
        """Queue a command, from any thread; the future completes once it is committed and flushed.

        Raises Overloaded at once when the queue is full. The future raises Unavailable when the store is away.
        """

    @abstractmethod
    def commit(self, command: Command[R]) -> asyncio.Future[R]:
        """As `submit`, from a coroutine."""

    @abstractmethod
    def close(self) -> None:
        """Write what is queued, then stop."""

    def _admit(self) -> None:
        if self._closing or self.queued >= MAX_QUEUED:
            raise Overloaded()
        self.health.admit()


def complete(futures: Iterable[AnyFuture], outcomes: Iterable[Outcome]) -> None:
    """Give futures their outcomes; a loop's on that loop."""
    for future, (result, error) in zip(futures, outcomes, strict=True):
        if future.done():  # its caller has given up, or was told that the store does not answer
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
