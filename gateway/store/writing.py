"""What a writer does: commit commands in groups, and wake who waits for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random_exponential

from gateway.errors import Unavailable
from gateway.store import schema
from gateway.store.database import Database
from gateway.store.journal import Command, Outcome

MAX_GROUP = 256
WAKE_SECONDS = 0.01


def write(database: Database, commands: Sequence[Command[Any]]) -> list[Outcome]:
    """Execute commands class by class in one transaction, and commit once.

    One that fails does not fail its neighbours: the group is then repeated one by one.
    """
    try:
        return [(result, None) for result in _execute(database, commands)]
    except Unavailable as error:
        return [(None, error)] * len(commands)
    except Exception as error:
        changed = schema.changed(database)
        if changed is not None:
            return [(None, changed)] * len(commands)
        if len(commands) == 1:
            return [(None, error)]
        return [outcome for command in commands for outcome in write(database, [command])]


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, Unavailable) and error.passing


@retry(retry=retry_if_exception(_may_pass), stop=stop_after_attempt(3), wait=wait_random_exponential(0.05, 0.3), reraise=True)
def _execute(database: Database, commands: Sequence[Command[Any]]) -> list[Any]:
    """The results of a committed group. A connection that broke is tried again: commands may be repeated."""
    kinds: dict[type[Command[Any]], list[int]] = {}
    for index, command in enumerate(commands):
        kinds.setdefault(type(command), []).append(index)
    results: list[Any] = [None] * len(commands)
    with database.transaction() as tx:
        for kind, indexes in kinds.items():
            found = kind.execute(tx, [commands[index] for index in indexes])
            for index, result in zip(indexes, found, strict=True):
                results[index] = result
    return results


class Waker:
    """Wakes who waits, after the commit and apart from it; at most once in WAKE_SECONDS."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._due = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="wake", daemon=True)
        self._thread.start()

    def committed(self, commands: Sequence[Command[Any]]) -> None:
        """Commands were committed, of which some may have made a run due."""
        if any(command.wakes for command in commands):
            self._due.set()

    def close(self) -> None:
        """Stop."""
        self._closing = True
        self._due.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._due.wait()
            self._due.clear()
            if self._closing:
                return
            self._database.wake()
            time.sleep(WAKE_SECONDS)
