"""A worker: claims due runs, executes them within its slots, ends them through the journal, and keeps its lease.

The lease is renewed by a thread of its own, so that a function that blocks the loop does not lose it. Such a function is
named after a while; when it blocks for longer than a lease, every other run is handed back and the process ends, for its
supervisor to start a fresh one (G9).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
import sys
import threading
import time
import traceback
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any

from gateway.clock import SECOND, Clock, Micros
from gateway.core.decide import Decision, decide
from gateway.core.outcome import Failed, Failure, HandedBack, Outcome
from gateway.core.retry import backoff_seconds
from gateway.engine.invoker import Call, Invoker
from gateway.engine.runlog import Capture, RunLog, current
from gateway.errors import Unavailable
from gateway.store.database import Database
from gateway.store.journal import Journal
from gateway.store.runs import Claim, Claimed, Finish, GiveBack, Heartbeat, Rescue, Retire, WriteLogs
from gateway.telemetry import Telemetry

CLAIM_LIMIT = 200
HELD_FACTOR = 3  # runs whose end waits to be committed hold no slot, but there is an end to them too
POLL_SECONDS = 1.0
LOG_SECONDS = 1.0
BLOCKED_WARNING_SECONDS = 1.0
EXIT_BLOCKED = 70


@dataclass(slots=True)
class Held:
    """A run this worker holds, from the claim to the committed end of the attempt."""

    run: Claimed
    started_at: int
    log: RunLog
    task: asyncio.Task[None] | None = None
    ending: bool = False
    let_go: bool = False

    def cancel(self) -> None:
        """Stop the attempt, because the worker must let go of the run."""
        if self.task is not None and not self.task.done():
            self.let_go = True
            self.task.cancel()


class Worker:
    """Claims and executes the runs of `function_ids`."""

    def __init__(
        self,
        *,
        id: str,
        database: Database,
        journal: Journal,
        invoker: Invoker,
        function_ids: tuple[str, ...],
        clock: Clock,
        telemetry: Telemetry,
        concurrency: int = 100,
        lease_seconds: float = 15.0,
        shutdown_seconds: float = 20.0,
    ) -> None:
        self.id = id
        self._database = database
        self._journal = journal
        self._invoker = invoker
        self._function_ids = function_ids
        self._clock = clock
        self._telemetry = telemetry
        self._concurrency = concurrency
        self._lease_seconds = lease_seconds
        self._shutdown_seconds = shutdown_seconds
        self._held: dict[str, Held] = {}
        self._running = 0
        self._more = False
        self._awake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._stopped = threading.Event()
        self._ticked = time.monotonic()

    async def run(self) -> None:
        """Work until `stop`, then finish or hand back within the shutdown time."""
        loop = self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        first = self._journal.submit(self._heartbeat())
        await asyncio.wrap_future(first)
        unlisten = self._database.listen(lambda: _threadsafe(loop, self._awake.set))
        heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        heart.start()
        ticker = asyncio.create_task(self._tick())
        capture = Capture()
        logging.getLogger().addHandler(capture)
        self._telemetry.emit("worker.started", worker=self.id, functions=len(self._function_ids))
        try:
            while not self._stopping.is_set():
                await self._claim()
        finally:
            await self._drain()
            self._stopped.set()
            unlisten()
            ticker.cancel()
            logging.getLogger().removeHandler(capture)
            await asyncio.to_thread(heart.join)
            with contextlib.suppress(Unavailable):
                await self._journal.commit(Retire(self.id))
            self._telemetry.emit("worker.stopped", worker=self.id)

    def stop(self) -> None:
        """Claim no more and end; safe to call twice."""
        self._stopping.set()
        self._awake.set()

    async def _claim(self) -> None:
        """Fill the free slots, then wait for a wake-up, a free slot, the next due run, or the poll."""
        self._awake.clear()
        limit = min(self._concurrency - self._running, CLAIM_LIMIT, self._concurrency * HELD_FACTOR - len(self._held))
        self._more = limit <= 0
        if self._more:
            await self._sleep(POLL_SECONDS)
            return
        try:
            found = await self._journal.commit(Claim(self.id, self._function_ids, limit, self._clock()))
        except Unavailable:
            await self._sleep(POLL_SECONDS)
            return
        for run in found.runs:
            self._start(run)
        self._more = len(found.runs) == limit
        if not self._more:
            await self._sleep(self._until(found.next_due_at))

    def _until(self, due: Micros | None) -> float:
        poll = POLL_SECONDS * random.uniform(0.8, 1.2)  # noqa: S311
        return poll if due is None else min(max((due - self._clock()) / SECOND, 0.001), poll)

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._awake.wait()

    def _start(self, run: Claimed) -> None:
        held = Held(run, self._clock(), RunLog(run.run_id, run.fence, run.attempt, self._clock))
        self._held[run.run_id] = held
        self._running += 1
        held.task = asyncio.create_task(self._attempt(held), name=f"{run.function_id} {run.run_id}")

    async def _attempt(self, held: Held) -> None:
        run = held.run
        wait_us = max(held.started_at - run.due_at, 0)
        self._telemetry.emit("run.started", run=run.run_id, function=run.function_id, attempt=run.attempt, wait_us=wait_us)
        current.set(held.log)
        try:
            outcome: Outcome = await self._invoker.invoke(Call(run))
        except asyncio.CancelledError as error:
            # A function may raise this by itself; handing that back, uncounted, would go on for ever.
            outcome = HandedBack() if held.let_go else Failed(Failure("CancelledError", str(error) or "cancelled from within"))
        except BaseException as error:
            outcome = Failed(Failure(type(error).__name__, str(error)))
        self._end(held, outcome)

    def _end(self, held: Held, outcome: Outcome) -> None:
        run, now = held.run, self._clock()
        held.ending = True
        self._running -= 1
        if self._more:
            self._awake.set()
        decision = decide(outcome, attempt=run.attempt, attempts=run.max_attempts, now=now, backoff_seconds=backoff_seconds)
        self._commit(self._finish(held, decision, now))

    def _finish(self, held: Held, decision: Decision, now: int) -> Finish:
        run = held.run
        return Finish(
            run_id=run.run_id,
            fence=run.fence,
            number=run.attempt,
            worker_id=self.id,
            started_at=held.started_at,
            first_started_at=run.first_started_at,
            finished_at=now,
            decision=decision,
            logs=held.log.take(),
        )

    def _commit(self, finish: Finish) -> None:
        try:
            future = self._journal.commit(finish)
        except Unavailable:
            self._loop.call_later(POLL_SECONDS, self._commit_unless_stopped, finish)
            return
        future.add_done_callback(lambda done: self._ended(finish, done))

    def _commit_unless_stopped(self, finish: Finish) -> None:
        if finish.run_id in self._held:
            self._commit(finish)

    def _ended(self, finish: Finish, done: asyncio.Future[bool]) -> None:
        if isinstance(done.exception(), Unavailable):
            # The outcome is known and the fence tells whether it may still be written: keep trying until it was answered.
            self._loop.call_later(POLL_SECONDS, self._commit_unless_stopped, finish)
            return
        held = self._held.pop(finish.run_id, None)
        error = finish.decision.error
        facts: dict[str, Any] = {"run": finish.run_id, "attempt": finish.number, "move": finish.decision.move}
        if done.exception() is not None:
            self._telemetry.emit("run.commit_failed", **facts, error=repr(done.exception()))
        elif not done.result():
            self._telemetry.emit("run.lease_lost", **facts)
        elif held is not None:
            facts |= {"function": held.run.function_id, "duration_us": finish.finished_at - finish.started_at}
            self._telemetry.emit("run.ended", **facts, error=f"{error.type}: {error.message}" if error else None)
        if self._more or self._stopping.is_set():
            self._awake.set()

    async def _drain(self) -> None:
        """Let running attempts end until the deadline, then hand the rest back, uncounted."""
        deadline = time.monotonic() + self._shutdown_seconds
        while self._held and time.monotonic() < deadline:
            self._awake.clear()
            await self._sleep(min(deadline - time.monotonic(), POLL_SECONDS))
        for held in self._held.values():
            held.cancel()
        deadline = time.monotonic() + POLL_SECONDS
        while self._held and time.monotonic() < deadline:
            self._awake.clear()
            await self._sleep(0.05)

    async def _tick(self) -> None:
        write_at = 0.0
        while True:
            self._ticked = time.monotonic()
            if self._ticked >= write_at:
                write_at = self._ticked + LOG_SECONDS
                self._write_logs()
            await asyncio.sleep(0.1)

    def _write_logs(self) -> None:
        """Keep what attempts that go on have said so far; the end of an attempt brings its last lines along."""
        lines = tuple(line for held in self._held.values() if not held.ending for line in held.log.take())
        if lines:
            with contextlib.suppress(Unavailable):
                self._journal.submit(WriteLogs(lines))

    # What follows runs on the heartbeat's thread.

    def _heartbeat(self) -> Heartbeat:
        lease = int(self._lease_seconds * SECOND)
        return Heartbeat(self.id, "worker", socket.gethostname(), os.getpid(), self._clock(), lease)

    def _beat(self) -> None:
        renewed = time.monotonic()
        warned = False
        while not self._stopped.wait(min(self._lease_seconds / 3, BLOCKED_WARNING_SECONDS)):
            blocked = time.monotonic() - self._ticked
            if blocked > self._lease_seconds:
                self._abandon()
            if blocked > BLOCKED_WARNING_SECONDS and not warned:
                self._telemetry.emit("worker.blocked", worker=self.id, **self._culprit(), seconds=round(blocked, 1))
            warned = blocked > BLOCKED_WARNING_SECONDS
            if time.monotonic() - renewed >= self._lease_seconds / 3 - 0.01:
                renewed = self._renew(renewed)

    def _renew(self, renewed: float) -> float:
        before = time.monotonic()
        try:
            holding = self._journal.submit(self._heartbeat()).result(timeout=self._lease_seconds / 3)
            self._journal.submit(Rescue(self._clock()))
        except (Unavailable, FutureTimeout):
            if before - renewed > self._lease_seconds * 0.6:
                _threadsafe(self._loop, self._let_go, {})
            return renewed
        _threadsafe(self._loop, self._compare, holding)
        return before

    def _compare(self, holding: dict[str, int]) -> None:
        """Let go of runs the database no longer says are ours; give back those it says are and we know nothing of."""
        self._let_go(holding)
        for run_id, fence in holding.items():
            if run_id not in self._held:
                self._loop.call_later(self._lease_seconds / 3, self._give_back_stranger, run_id, fence)

    def _give_back_stranger(self, run_id: str, fence: int) -> None:
        if run_id not in self._held and not self._stopped.is_set():
            with contextlib.suppress(Unavailable):
                self._journal.submit(GiveBack(run_id, fence, self.id, self._clock()))

    def _let_go(self, holding: dict[str, int]) -> None:
        now = self._clock()
        for held in self._held.values():
            young = now - held.started_at < self._lease_seconds * SECOND / 3
            if not held.ending and not young and holding.get(held.run.run_id) != held.run.fence:
                held.cancel()

    def _culprit(self) -> dict[str, str]:
        frame = sys._current_frames().get(self._loop_thread)  # pyright: ignore[reportPrivateUsage]
        stack = "".join(traceback.format_stack(frame)[-4:]) if frame else ""
        return {"function": self._blocking() or "?", "stack": stack}

    def _blocking(self) -> str:
        """`function run` of the task that holds the loop."""
        task = asyncio.current_task(self._loop)
        return task.get_name() if task is not None else ""

    def _abandon(self) -> None:
        """The loop has been blocked for a lease: hand every run back but the one that blocks it, and end the process."""
        culprit = self._blocking().rpartition(" ")[2]
        self._telemetry.emit("worker.abandoned", worker=self.id, **self._culprit())
        now = self._clock()
        futures: list[Future[bool]] = []
        for held in list(self._held.values()):
            if held.run.run_id != culprit and not held.ending:
                with contextlib.suppress(Unavailable):
                    futures.append(self._journal.submit(self._finish(held, Decision("hand_back", due_at=now), now)))
        for future in futures:
            with contextlib.suppress(Exception):
                future.result(timeout=5)
        with contextlib.suppress(Exception):
            self._journal.submit(Retire(self.id)).result(timeout=5)
        os._exit(EXIT_BLOCKED)


def _threadsafe(loop: asyncio.AbstractEventLoop, call: Any, *args: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whatever this was about
        loop.call_soon_threadsafe(call, *args)
