"""The writer of a gateway, a process of its own: commands in by a socket, commits them in groups, outcomes out by it.

Started by ProcessJournal as `python -P -m gateway.store.writer DESCRIPTOR`; ends when the other end is closed, however that comes,
once it has written what has come.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Union, cast

import msgspec

from gateway import interpreter
from gateway.store import access, admin, answers, duties, endings, inbox, offers, retention, runs, stats, steps, waits
from gateway.store.database import Database, Transaction, open_database
from gateway.store.frames import RECEIVE_BYTES, Frames, Numbered, outcome_frame
from gateway.store.journal import Command, Outcome
from gateway.store.writing import MAX_GROUP, Waker, write

LATE_SECONDS = 1.0
# Where the commands are.
MODULES = (access, admin, answers, duties, endings, inbox, offers, retention, runs, stats, steps, waits)


class Unreadable(Command[None], frozen=True):
    """A command that cannot be read here, which fails as any other that cannot be done."""

    why: str

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[Unreadable]) -> list[None]:
        raise ValueError(commands[0].why)


class Writer:
    """Commits whatever has come while the last group was written."""

    def __init__(self, database: Database, channel: socket.socket) -> None:
        self._database = database
        self._channel = channel
        self._frames = Frames()
        self._commands: deque[tuple[int, Command[Any]]] = deque()
        self._sending = threading.Lock()
        self._since: float | None = None

    def run(self) -> None:
        """Until the other end is closed."""
        waker = Waker(self._database)
        threading.Thread(target=self._tell_when_late, name="late", daemon=True).start()
        while self._receive():
            taken = [self._commands.popleft() for _ in range(min(len(self._commands), MAX_GROUP))]
            group = [command for _, command in taken]
            self._since = time.monotonic()
            outcomes = write(self._database, group)
            self._since = None
            self._send([(number, *_portable(outcome)) for (number, _), outcome in zip(taken, outcomes, strict=True)])
            waker.committed(group)
            self._database.after_commit(len(group))
        waker.close()
        self._database.close()

    def _receive(self) -> bool:
        """Take all that has come, and wait when that is nothing; whether there is anything to be written."""
        while len(self._commands) < MAX_GROUP:
            try:
                data = self._channel.recv(RECEIVE_BYTES, socket.MSG_DONTWAIT if self._commands else 0)
            except BlockingIOError:
                break
            except ConnectionResetError:  # the gateway was killed; what it had sent is still to be read
                continue
            if not data:
                break
            self._commands += [(number, _command(found)) for number, found in self._frames.feed(data)]
        return bool(self._commands)

    def _send(self, value: list[Numbered] | str) -> None:
        with self._sending, contextlib.suppress(OSError):  # nobody is there any more to be told
            self._channel.sendall(outcome_frame(value))

    def _tell_when_late(self) -> None:
        """Say what a transaction waits for, when it takes long."""
        while True:
            time.sleep(LATE_SECONDS / 2)
            since = self._since
            if since is not None and time.monotonic() - since > LATE_SECONDS:
                self._send(self._database.late)


def commands() -> set[type[Command[Any]]]:
    """Every class of command."""
    found = [value for module in MODULES for value in vars(module).values() if isinstance(value, type)]
    return {value for value in found if issubclass(value, Command) and value is not Command}


_decode: Callable[[bytes], Command[Any]] = msgspec.msgpack.Decoder(cast(Any, Union)[tuple(commands())]).decode


def _command(data: bytes) -> Command[Any]:
    try:
        return _decode(data)
    except Exception as error:
        return Unreadable(repr(error))


def _portable(outcome: Outcome) -> Outcome:
    """With an error that the other end can read: a driver's may be none."""
    if outcome[1] is not None:
        try:
            pickle.loads(pickle.dumps(outcome[1]))  # noqa: S301
        except Exception:
            return None, RuntimeError(repr(outcome[1]))
    return outcome


def main() -> None:
    """Write to the database of TIDEGATE_DATABASE_URL what comes by the socket whose descriptor is the first argument."""
    for number in (signal.SIGINT, signal.SIGTERM):  # whoever ends a gateway ends that, and then this ends by itself
        signal.signal(number, signal.SIG_IGN)
    database = open_database(os.environ["TIDEGATE_DATABASE_URL"])
    interpreter.tune()
    Writer(database, socket.socket(fileno=int(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
