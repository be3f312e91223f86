"""A worker: claims due runs, executes them within its slots, and ends them through the journal."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from gateway.clock import SECOND, Clock, Micros, system_clock
from gateway.core.decide import decide
from gateway.core.outcome import Cancelled, Failed, Failure, HandedBack, Outcome, Suspended
from gateway.core.retry import backoff_seconds
from gateway.core.spec import FunctionSpec
from gateway.engine.branches import adopting
from gateway.engine.failures import failure_of
from gateway.engine.held import Held
from gateway.engine.invoker import MAX_RUN_BYTES, MAX_STEP_BYTES, Invoker
from gateway.engine.lease import Lease, threadsafe
from gateway.engine.offered import Offered
from gateway.engine.recorder import Recorder
from gateway.engine.resolver import Resolver, wait_of
from gateway.engine.runlog import Capture, RunLog, current
from gateway.errors import Unavailable
from gateway.store.database import Database
from gateway.store.journal import Journal
from gateway.store.offers import Publish
from gateway.store.runs import Claim, Claimed, Finish, GiveBack, WriteLogs, fences
from gateway.store.waits import Lookups
from gateway.telemetry import Telemetry

CLAIM_LIMIT = 200
HELD_FACTOR = 3  # runs whose end waits to be committed hold no slot, but there is an end to them too
POLL_SECONDS = 1.0
LOG_SECONDS = 1.0
TICK_SECONDS = 0.1
FINISHED = "tidegate/function.finished"
BLOCKED = Failure(
    "LoopBlocked",
    "this attempt blocked the event loop for longer than its worker's lease: it called something that waits without `await`."
    " Make the function a plain `def`, which runs in a thread, or put the call into a step",
)


class Worker:
    """Claims and executes the runs of the functions in `specs`, by what their runs are queued as.

    `offer`: what publishes them for as long as it lives. `replaces`: the worker that died in this one's place.
    """

    def __init__(
        self,
        *,
        id: str,
        database: Database,
        journal: Journal,
        invoker: Invoker,
        specs: Mapping[str, FunctionSpec],
        telemetry: Telemetry,
        clock: Clock = system_clock,
        concurrency: int = 100,
        lease_seconds: float = 15.0,
        shutdown_seconds: float = 20.0,
        max_step_bytes: int = MAX_STEP_BYTES,
        max_run_bytes: int = MAX_RUN_BYTES,
        offer: Publish | None = None,
        replaces: str | None = None,
    ) -> None:
        self.id = id
        self._database = database
        self._journal = journal
        self._invoker = invoker
        self._specs = specs
        self._clock = clock
        self._telemetry = telemetry
        self._concurrency = concurrency
        self._lease_seconds = lease_seconds
        self._shutdown_seconds = shutdown_seconds
        self._limits = (max_step_bytes, max_run_bytes)
        self._offered = Offered(database)
        self._recorder = Recorder(journal, database, self._offered, clock, max_step_bytes)
        self._resolver = Resolver(journal, database, self._offered, self._recorder, telemetry, clock)
        self._lookups = Lookups(database)
        self._replaces = replaces
        self._lease = Lease(id, journal, self, clock, telemetry, lease_seconds, offer)
        # By run and fence: a run that was cancelled and retried may be back before its first attempt has let go.
        self._held: dict[tuple[str, int], Held] = {}
        self._running = 0
        self._more = False
        self._planned: Micros = 0
        self._awake = asyncio.Event()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Work until `stop`, then finish or hand back within the shutdown time."""
        loop = self._loop = asyncio.get_running_loop()
        loop.set_task_factory(adopting)
        await self._lease.take(self._replaces)
        await asyncio.to_thread(self._offered.refresh)
        unlisten = self._database.listen(lambda: threadsafe(loop, self._wake))
        beside = [asyncio.create_task(work) for work in (self._tick(), self._watch(), self._offered.follow(), self._resolver.run())]
        capture = Capture()
        logging.getLogger().addHandler(capture)
        self._telemetry.emit("worker.started", worker=self.id, functions=len(self._specs))
        try:
            while not self._stopping.is_set():
                await self._claim()
        finally:
            await self._drain()
            unlisten()
            for task in beside:
                task.cancel()
            await asyncio.wait(beside)
            logging.getLogger().removeHandler(capture)
            await self._lease.end()
            self._telemetry.emit("worker.stopped", worker=self.id)

    def stop(self) -> None:
        """Claim no more and end; safe to call twice."""
        self._stopping.set()
        self._awake.set()

    def _wake(self) -> None:
        self._awake.set()
        self._resolver.wake()

    async def _claim(self) -> None:
        """Fill the free slots, then wait for a wake-up, a free slot, the next due run, or the poll."""
        self._awake.clear()
        limit = min(self._concurrency - self._running, CLAIM_LIMIT, self._concurrency * HELD_FACTOR - len(self._held))
        self._more = limit <= 0
        if self._more:
            await self._sleep(POLL_SECONDS)
            return
        try:
            found = await self._journal.commit(Claim(self.id, tuple(self._specs), limit, self._clock()))
        except Unavailable:
            await self._sleep(POLL_SECONDS)
            return
        for run in found.runs:
            self._start(run)
        self._more = len(found.runs) == limit
        if not self._more:
            await self._sleep(self._until(found.next_due_at))

    def _until(self, due: Micros | None) -> float:
        now = self._clock()
        poll = POLL_SECONDS * random.uniform(0.8, 1.2)  # noqa: S311
        seconds = poll if due is None else min(max((due - now) / SECOND, 0.001), poll)
        self._planned = now + int(seconds * SECOND)
        return seconds

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._awake.wait()

    def _start(self, run: Claimed) -> None:
        spec = self._specs[run.function_id]
        held = Held(run, spec, self._clock(), RunLog(run.run_id, spec.id, run.fence, run.attempt, self._clock))
        self._held[run.run_id, run.fence] = held
        self._running += 1
        held.task = asyncio.create_task(self._attempt(held), name=f"{run.function_id} {run.run_id}")

    async def _attempt(self, held: Held) -> None:
        run = held.run
        wait_us = max(held.started_at - run.due_at, 0)
        self._telemetry.emit("run.started", run=run.run_id, function=held.spec.id, attempt=run.attempt, wait_us=wait_us)
        current.set(held.log)
        try:
            outcome = await self._refused(held) or await self._invoked(held)
        except asyncio.CancelledError as error:
            # A function may raise this by itself; handing that back, uncounted, would go on for ever.
            outcome = HandedBack() if held.let_go else Failed(failure_of(error))
        except BaseException as error:
            outcome = Failed(failure_of(error))
        self._end(held, outcome)

    async def _refused(self, held: Held) -> Cancelled | None:
        """Why a run must not be started, or started again."""
        run, spec = held.run, held.spec
        if (
            spec.start_seconds is not None
            and run.attempt == 1
            and not run.steps
            and run.first_started_at - run.due_at > spec.start_seconds * SECOND
        ):
            return Cancelled(Failure("TimedOut", f"it could not be started within {spec.start_seconds:g} s"))
        if spec.finish_seconds is not None and self._clock() - run.first_started_at >= spec.finish_seconds * SECOND:
            return _unfinished(spec.finish_seconds)
        if spec.cancel_on and not run.steps:
            # An event that cancels may have been committed beside the run, by somebody who could not see it; and an earlier
            # attempt may have died before it looked.
            for row in await asyncio.to_thread(self._lookups.waits_of, run.run_id):
                found = await self._recorder.look(wait_of(row)) if row["kind"] == "cancel" else None
                if found is not None:
                    return Cancelled(Failure("Cancelled", f"event {found['id']} ({found['name']}) arrived"))
        return None

    async def _invoked(self, held: Held) -> Outcome:
        """What came of the attempt, within the time that the whole run has."""
        call = held.call(self._recorder, *self._limits)
        seconds = held.spec.finish_seconds
        if seconds is None:
            return await self._invoker.invoke(call)
        until = held.run.first_started_at + int(seconds * SECOND)
        limit = asyncio.timeout(max((until - self._clock()) / SECOND, 0))
        try:
            async with limit:
                outcome = await self._invoker.invoke(call)
        except TimeoutError:
            if not limit.expired():
                raise
            return _unfinished(seconds)
        return replace(outcome, due_at=min(outcome.due_at, until)) if isinstance(outcome, Suspended) else outcome

    def _end(self, held: Held, outcome: Outcome) -> None:
        run, now = held.run, self._clock()
        held.ending = True
        self._running -= 1
        if self._more:
            self._awake.set()
        shown = held.shown(self._clock, last=True)
        if shown is not None:
            with contextlib.suppress(Unavailable):
                self._journal.submit(shown)
        decision = decide(outcome, attempt=run.attempt, attempts=run.max_attempts, now=now, backoff_seconds=backoff_seconds)
        told = run.parent_key is not None or self._offered.fanout.anyone_listens(FINISHED)
        self._commit(held.finish(decision, outcome, now, self.id, tell=told))

    def _commit(self, finish: Finish) -> None:
        try:
            future = self._journal.commit(finish)
        except Unavailable:
            self._loop.call_later(POLL_SECONDS, self._commit_unless_stopped, finish)
            return
        future.add_done_callback(lambda done: self._ended(finish, done))

    def _commit_unless_stopped(self, finish: Finish) -> None:
        if (finish.run_id, finish.fence) in self._held:
            self._commit(finish)

    def _ended(self, finish: Finish, done: asyncio.Future[bool]) -> None:
        if isinstance(done.exception(), Unavailable):
            # The outcome is known and the fence tells whether it may still be written: keep trying until it was answered.
            self._loop.call_later(POLL_SECONDS, self._commit_unless_stopped, finish)
            return
        held = self._held.pop((finish.run_id, finish.fence), None)
        decision = finish.decision
        facts: dict[str, Any] = {"run": finish.run_id, "attempt": finish.number, "move": decision.move}
        if done.exception() is not None:
            self._telemetry.emit("run.commit_failed", **facts, error=repr(done.exception()))
        elif held is not None and (done.result() or held.cancelled):
            facts |= {"function": held.spec.id, "duration_us": finish.finished_at - finish.started_at}
            facts["move"] = decision.move if done.result() else "cancel"
            error = decision.error
            self._telemetry.emit("run.ended", **facts, error=f"{error.type}: {error.message}" if error else None)
        else:
            self._telemetry.emit("run.lease_lost", **facts)
        if not done.exception() and not done.result():
            self._keep(finish.logs)
        sooner = decision.due_at is not None and (decision.due_at < self._planned or bool(finish.pending))
        if finish.tell or decision.move in ("fail", "cancel"):
            self._resolver.wake()
        if self._more or sooner or self._stopping.is_set():
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
        """Show that the loop runs, and keep what attempts that go on have said and shown so far."""
        write_at = 0.0
        while True:
            self._lease.tick()
            going_on = [held for held in self._held.values() if not held.ending]
            for shown in filter(None, [held.shown(self._clock) for held in going_on]):
                with contextlib.suppress(Unavailable):
                    self._journal.submit(shown)
            if time.monotonic() >= write_at:
                write_at = time.monotonic() + LOG_SECONDS
                self._keep(tuple(line for held in going_on for line in held.log.take()))
            await asyncio.sleep(TICK_SECONDS)

    def _keep(self, lines: tuple[Any, ...]) -> None:
        if lines:
            with contextlib.suppress(Unavailable):
                self._journal.submit(WriteLogs(lines))

    async def _watch(self) -> None:
        """Let go, within a second, of runs that were cancelled or that have another holder."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            before = [held for held in self._held.values() if not held.ending]
            with contextlib.suppress(Unavailable):
                held_now = await asyncio.to_thread(fences, self._database, [held.run.run_id for held in before])
                for held in before:
                    if not held.ending and held_now.get(held.run.run_id) != held.run.fence:
                        held.cancelled = held.run.run_id not in held_now
                        held.cancel()

    # What the lease asks of its holder.

    def compare(self, holding: dict[str, int]) -> None:
        """Give back runs that the database says are ours and that we know nothing of: the claim's answer got lost."""
        for run_id, fence in holding.items():
            if (run_id, fence) not in self._held:
                self._loop.call_later(self._lease_seconds / 3, self._give_back_stranger, run_id, fence)

    def _give_back_stranger(self, run_id: str, fence: int) -> None:
        if (run_id, fence) not in self._held and not self._stopping.is_set():
            with contextlib.suppress(Unavailable):
                self._journal.submit(GiveBack(run_id, fence, self.id, self._clock()))

    def lose(self) -> None:
        """Let go of every run: by now another worker may hold it."""
        for held in self._held.values():
            if not held.ending:
                held.cancel()

    def hand_back(self, culprit: str) -> list[Finish]:
        """What gives every run back, uncounted, and counts the attempt that blocks the loop as failed."""
        return list(self._handing_back(culprit))

    def _handing_back(self, culprit: str) -> Iterator[Finish]:
        now = self._clock()
        for held in list(self._held.values()):
            if held.ending:
                continue
            outcome: Outcome = Failed(BLOCKED) if held.run.run_id == culprit else HandedBack()
            run = held.run
            decision = decide(outcome, attempt=run.attempt, attempts=run.max_attempts, now=now, backoff_seconds=backoff_seconds)
            yield held.finish(decision, outcome, now, self.id, tell=run.parent_key is not None)


def _unfinished(seconds: float) -> Cancelled:
    return Cancelled(Failure("TimedOut", f"it had not finished {seconds:g} s after its start"))
