"""What a worker does, in memory and for one test: attempt after attempt, with a clock that moves on when all is waiting.

Functions are run by the engine's own invoker and ledger, and what follows from an attempt is decided as everywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from gateway.clock import NEVER, SECOND, Micros, to_datetime
from gateway.core.decide import Decision, decide
from gateway.core.outcome import Cancelled, Failed, Failure, Outcome, Suspended
from gateway.core.retry import backoff_seconds
from gateway.core.steps import Operation, Step
from gateway.engine.invoker import Call
from gateway.engine.local import LocalInvoker
from gateway.engine.runlog import RunLog, current
from gateway.sdk.function import Function
from gateway.store.runs import OUTCOMES
from gateway.testing.memory import Memory
from gateway.testing.runs import Clock, Run, Stuck, why_stuck
from gateway.testing.stubs import StubbedLedger, Stubs
from gateway.testing.supplies import Supply
from gateway.testing.trace import Attempt

MAX_TIMES = 1000


class World:
    """A memory full of runs, and who runs them."""

    def __init__(self, clock: Clock, memory: Memory, functions: Sequence[Function[Any]], stubs: Stubs) -> None:
        self._clock = clock
        self._memory = memory
        self._stubs = stubs
        with_handlers = [one for function in functions for one in (function, function.failure) if one is not None]
        self._invoker = LocalInvoker({one.spec.queued_as: one for one in with_handlers}, clock, partial(StubbedLedger, stubs))

    async def play(self, main: Run, timed: Sequence[Supply]) -> None:
        """Let everything happen, until nothing does any more. Raises Stuck where `main` cannot end then."""
        coming = list(timed)
        while live := [run for run in self._memory.runs if run.live]:
            run = min(live, key=lambda one: one.due_at)
            if coming and (coming[0].at or 0) <= run.due_at:
                supply = coming.pop(0)
                self._clock.now = max(self._clock.now, supply.at or 0)
                self._memory.supply(supply)
            elif run.due_at < NEVER:
                self._clock.now = max(self._clock.now, run.due_at)
                await self._attempt(run)
            else:
                break
        if main.live:
            unused = {supply.name for supply in (*timed, *self._memory.on_demand) if not supply.used}
            raise Stuck(f"the run of {main.function.id!r} can never end: {why_stuck(main, self._memory.runs, unused)}")

    async def _attempt(self, run: Run) -> None:
        if run.fence >= MAX_TIMES:
            raise Stuck(f"the run of {run.function.id!r} has gone on {MAX_TIMES} times: is there a loop without an end?")
        began = self._clock.now
        run.attempt, run.fence, run.held = run.attempt + 1, run.fence + 1, True
        run.started_at = began if run.started_at is None else run.started_at
        log = RunLog(run.id, run.function.id, run.fence, run.attempt, self._clock)
        outcome = await self._outcome(run, log)
        run.held = False
        run.said += log.take()
        broken = self._memory.broken or self._stubs.broken
        if broken is not None:
            raise broken
        if run.ending is not None:  # cancelled meanwhile, by an event of its own
            self._ended(run, run.ending, began)
        else:
            self._follow(run, outcome, began)

    def _follow(self, run: Run, outcome: Outcome, began: Micros) -> None:
        now, attempts = self._clock.now, run.function.spec.attempts
        decision = decide(outcome, attempt=run.attempt, attempts=attempts, now=now, backoff_seconds=backoff_seconds)
        run.due_at = now if decision.due_at is None else decision.due_at
        if decision.move == "park":
            run.attempt -= 1
            if isinstance(outcome, Suspended) and any(run.steps[key].status != "waiting" for key in outcome.pending):
                run.due_at = now
            return
        self._ended(run, decision, began)
        if decision.move in OUTCOMES:
            self._memory.end(run, decision)

    async def _outcome(self, run: Run, log: RunLog) -> Outcome:
        seconds = run.function.spec.finish_seconds
        until = NEVER if seconds is None else (run.started_at or 0) + int(seconds * SECOND)
        if self._clock.now >= until:
            return Cancelled(Failure("TimedOut", f"it had not finished {seconds:g} s after its start"))

        async def record(operation: Operation, fresh: bool) -> Step | None:
            return await self._memory.record(run, operation)

        async def invoked() -> Outcome:
            current.set(log)
            return await self._invoker.invoke(Call(run.claimed(), record, log.add, run.show))

        try:
            outcome = await asyncio.create_task(invoked(), name=f"{run.function.id} {run.id}")
        except asyncio.CancelledError as error:
            outcome = Failed(Failure("CancelledError", str(error) or "cancelled from within"))
        return replace(outcome, due_at=min(outcome.due_at, until)) if isinstance(outcome, Suspended) else outcome

    def _ended(self, run: Run, decision: Decision, began: Micros) -> None:
        """Keep the attempt that has ended."""
        attempt = Attempt(
            number=run.attempt,
            outcome=OUTCOMES.get(decision.move, "failed"),  # type: ignore[arg-type]
            error=decision.error,
            started_at=to_datetime(began),
            finished_at=to_datetime(self._clock.now),
        )
        run.attempts.append(attempt)
