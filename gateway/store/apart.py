"""The journal of a process whose interpreter is busy: its writer is a process of its own, and is started again when it ends."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from itertools import count

from gateway.errors import StoreState, Unavailable
from gateway.store.frames import RECEIVE_BYTES, Frames, Numbered, command_frame, read_outcomes
from gateway.store.journal import AnyFuture, Command, Journal, R, complete
from gateway.telemetry import Telemetry

STALLED_SECONDS = 1.5
WATCH_SECONDS = 0.25
RESTART_SECONDS = 0.5
END_SECONDS = 10.0
SEND_AT = 32


class ProcessJournal(Journal):
    """A socket to the writer: numbered commands there, and their outcomes back.

    Until it is attached to a loop, one thread may `submit`, which returns once the outcome is there.
    """

    def __init__(self, url: str, telemetry: Telemetry | None = None) -> None:
        super().__init__(telemetry)
        self._url = url
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._transport: asyncio.Transport | None = None
        self._gathered: list[bytes] = []
        self._numbers = count(1)
        self._waiting: dict[int, AnyFuture] = {}
        self._since = 0.0
        self._late: StoreState = "stalled"
        self._start()

    def _start(self) -> None:
        self._channel, theirs = socket.socketpair()
        command = [sys.executable, "-P", "-m", "gateway.store.writer", str(theirs.fileno())]
        environment = {**os.environ, "TIDEGATE_DATABASE_URL": self._url}
        with theirs:
            # In a group of its own: whoever ends the gateway by its terminal is not to end this first.
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment, process_group=0)  # noqa: S603

    @property
    def queued(self) -> int:
        return len(self._waiting)

    def submit(self, command: Command[R]) -> Future[R]:
        self._admit()
        future: Future[R] = Future()
        number = next(self._numbers)
        frame = command_frame(number, command)
        if self._loop is None:
            self._exchange(frame, future)
        elif threading.get_ident() == self._loop_thread:
            self._put(number, frame, future)
        else:
            self._loop.call_soon_threadsafe(self._put, number, frame, future)
        return future

    def commit(self, command: Command[R]) -> asyncio.Future[R]:
        self._admit()
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        number = next(self._numbers)
        self._put(number, command_frame(number, command), future)
        return future

    async def attach(self) -> None:
        """Do all that follows on this loop, which runs until the journal has been closed."""
        self._loop, self._loop_thread = asyncio.get_running_loop(), threading.get_ident()
        await self._connect(self._loop)

    async def watch(self) -> None:
        """For as long as it runs, answer with Unavailable what coroutines have waited for STALLED_SECONDS.

        It may still be committed: the same command, repeated, then finds itself there.
        """
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if self._waiting and time.monotonic() - self._since >= STALLED_SECONDS:
                error = Unavailable("the database has not answered in time", state=self._late)
                self.health.failed(error)
                own = [future for future in self._waiting.values() if isinstance(future, asyncio.Future)]
                complete(own, [(None, error)] * len(own))

    def close(self) -> None:
        """Write what is queued, then stop. Not to be called on the loop: outcomes are still to come there."""
        if self._closing:
            return
        self._closing = True
        if self._loop is None:
            self._channel.close()
        else:
            self._loop.call_soon_threadsafe(self._end)
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:  # what it still has to write was not acknowledged
            self._process.kill()
            self._process.wait()

    def _end(self) -> None:
        self._send()
        if self._transport is not None:
            self._transport.write_eof()

    def _exchange(self, frame: bytes, future: AnyFuture) -> None:
        self._channel.sendall(frame)
        frames = Frames()
        while not future.done():
            try:
                data = self._channel.recv(RECEIVE_BYTES)
            except ConnectionResetError:
                data = b""
            for _, found in frames.feed(data):
                told: Sequence[Numbered] | str = read_outcomes(found)
                if not isinstance(told, str):
                    complete([future], [told[0][1:]])
            if not data:
                future.set_exception(_ended())

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> None:
        self._channel.setblocking(False)
        self._transport, _ = await loop.create_unix_connection(lambda: _Outcomes(self), sock=self._channel)
        self._send()

    def _put(self, number: int, frame: bytes, future: AnyFuture) -> None:
        assert self._loop is not None
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting[number] = future
        self._gathered.append(frame)
        if len(self._gathered) == 1:
            self._loop.call_soon(self._send)
        elif len(self._gathered) == SEND_AT:  # the writer begins, while the loop reads the rest
            self._send()

    def _send(self) -> None:
        if not self._gathered or self._transport is None:
            return
        gathered, self._gathered = self._gathered, []
        try:
            self._transport.write(b"".join(gathered))
        except Exception as error:  # no memory, say: nobody knows what was sent of it, and all that wait will be told
            self._transport.abort()
            asyncio.get_running_loop().call_exception_handler({"message": "the writer could not be sent to", "exception": error})

    def told(self, found: Sequence[Numbered] | StoreState) -> None:
        """The writer has told the outcomes of a group, or why one takes long."""
        if isinstance(found, str):
            self._late = found
            return
        self._late, self._since = "stalled", time.monotonic()
        outcomes = [(result, error) for _, result, error in found]
        self.health.note(outcomes)
        complete([self._waiting.pop(number) for number, _, _ in found], outcomes)

    def lost(self) -> None:
        """The writer has ended."""
        self._transport = None
        error = _ended()
        waiting, self._waiting, self._gathered = self._waiting, {}, []
        complete(waiting.values(), [(None, error)] * len(waiting))
        if not self._closing and self._loop is not None:
            self.health.failed(error)
            self._loop.call_later(RESTART_SECONDS, self._restart, self._loop)

    def _restart(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._closing:
            return
        self._process.kill()
        self._process.wait()
        try:
            self._start()
        except OSError:  # no memory, or no more files to be opened: for now
            loop.call_later(RESTART_SECONDS, self._restart, loop)
        else:
            self._connecting = loop.create_task(self._connect(loop))


class _Outcomes(asyncio.Protocol):
    """What the writer tells."""

    def __init__(self, journal: ProcessJournal) -> None:
        self._journal = journal
        self._frames = Frames()

    def data_received(self, data: bytes) -> None:
        for _, found in self._frames.feed(data):
            self._journal.told(read_outcomes(found))

    def connection_lost(self, exc: Exception | None) -> None:
        self._journal.lost()


def _ended() -> Unavailable:
    return Unavailable("the process that writes to the database has ended", state="writer_ended")
