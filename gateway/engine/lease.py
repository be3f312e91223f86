"""A worker's lease, renewed by a thread of its own, so that a function that blocks the loop does not lose it.

Such a function is named after a while; when it blocks for longer than a lease, every other run is handed back and the process
ends, for its supervisor to start a fresh one (G9).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Protocol

from gateway.clock import SECOND, Clock
from gateway.errors import Unavailable
from gateway.store.duties import LeaveDuties
from gateway.store.journal import Journal
from gateway.store.offers import Publish
from gateway.store.runs import Finish, Heartbeat, Rescue, Retire
from gateway.telemetry import Telemetry

BLOCKED_WARNING_SECONDS = 1.0
EXIT_BLOCKED = 70


class Holder(Protocol):
    """Whose lease it is."""

    def compare(self, holding: dict[str, int]) -> None:
        """The database says that these runs are held, under these fences. Called on the loop."""
        ...

    def lose(self) -> None:
        """The lease may be over: let go of every run. Called on the loop."""
        ...

    def hand_back(self, culprit: str) -> list[Finish]:
        """What gives back every run, and fails the one that blocks the loop. Called while the loop is blocked."""
        ...


class Lease:
    """Keeps the lease of one worker, and offers its functions for as long."""

    def __init__(
        self, id: str, journal: Journal, holder: Holder, clock: Clock, telemetry: Telemetry, seconds: float, offer: Publish | None
    ) -> None:
        self._id = id
        self._offer = offer
        self._journal = journal
        self._holder = holder
        self._clock = clock
        self._telemetry = telemetry
        self._seconds = seconds
        self._stopped = threading.Event()
        self._ticked = time.monotonic()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    async def take(self, replaces: str | None = None) -> None:
        """Take the lease, and keep it from now on. `replaces`: a worker that is known to be dead, whose runs are free at once."""
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        await self._journal.commit(self._heartbeat())
        if self._offer is not None:
            await self._journal.commit(self._offer)
        if replaces is not None:
            await self._journal.commit(Retire(replaces))
            await self._journal.commit(LeaveDuties(replaces))
            await self._journal.commit(Rescue(self._clock()))
        self._thread.start()

    async def end(self) -> None:
        """Keep it no longer, and end it."""
        self._stopped.set()
        await asyncio.to_thread(self._thread.join)
        with contextlib.suppress(Unavailable):
            await self._journal.commit(Retire(self._id))

    def tick(self) -> None:
        """The loop runs."""
        self._ticked = time.monotonic()

    # What follows runs on the heartbeat's thread.

    def _heartbeat(self) -> Heartbeat:
        return Heartbeat(self._id, "worker", socket.gethostname(), os.getpid(), self._clock(), int(self._seconds * SECOND))

    def _beat(self) -> None:
        renewed = time.monotonic()
        warned = False
        while not self._stopped.wait(min(self._seconds / 3, BLOCKED_WARNING_SECONDS)):
            blocked = time.monotonic() - self._ticked
            if blocked > self._seconds:
                self._abandon()
            if blocked > BLOCKED_WARNING_SECONDS and not warned:
                self._telemetry.emit("worker.blocked", worker=self._id, **self._culprit(), seconds=round(blocked, 1))
            warned = blocked > BLOCKED_WARNING_SECONDS
            if time.monotonic() - renewed >= self._seconds / 3 - 0.01:
                renewed = self._renew(renewed)

    def _renew(self, renewed: float) -> float:
        before = time.monotonic()
        try:
            holding = self._journal.submit(self._heartbeat()).result(timeout=self._seconds / 3)
            if self._offer is not None and before - renewed > self._seconds:
                self._journal.submit(self._offer)  # while the lease was over, others may have withdrawn it
            self._journal.submit(Rescue(self._clock()))
        except (Unavailable, FutureTimeout):
            if before - renewed > self._seconds * 0.6:
                threadsafe(self._loop, self._holder.lose)
            return renewed
        threadsafe(self._loop, self._holder.compare, holding)
        return before

    def _culprit(self) -> dict[str, str]:
        frame = sys._current_frames().get(self._loop_thread)  # pyright: ignore[reportPrivateUsage]
        stack = "".join(traceback.format_stack(frame)[-4:]) if frame else ""
        return {"function": self._blocking() or "?", "stack": stack}

    def _blocking(self) -> str:
        """`function run` of the task that holds the loop."""
        task = asyncio.current_task(self._loop)
        return task.get_name() if task is not None else ""

    def _abandon(self) -> None:
        """The loop has been blocked for a lease: end every run's attempt, and then the process."""
        self._telemetry.emit("worker.abandoned", worker=self._id, **self._culprit())
        futures: list[Future[bool]] = []
        for finish in self._holder.hand_back(self._blocking().rpartition(" ")[2]):
            with contextlib.suppress(Unavailable):
                futures.append(self._journal.submit(finish))
        for future in futures:
            with contextlib.suppress(Exception):
                future.result(timeout=5)
        with contextlib.suppress(Exception):
            self._journal.submit(Retire(self._id)).result(timeout=5)
        os._exit(EXIT_BLOCKED)


def threadsafe(loop: asyncio.AbstractEventLoop, call: Callable[..., Any], *args: Any) -> None:
    """Call on the loop, from any thread."""
    with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whatever this was about
        loop.call_soon_threadsafe(call, *args)
