"""A run that a worker holds, from the claim to the committed end of the attempt."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from functools import partial

from gateway.clock import Clock, Micros
from gateway.core.decide import Decision
from gateway.core.outcome import Outcome, Suspended
from gateway.core.spec import FunctionSpec
from gateway.core.steps import Operation, Step
from gateway.engine.invoker import Call
from gateway.engine.recorder import Recorder
from gateway.engine.runlog import RunLog
from gateway.store.runs import Claimed, Finish, WriteProgress

PROGRESS_SECONDS = 0.5
MAX_MESSAGE = 500

Progress = tuple[int, int | None, str]


@dataclass(slots=True)
class Held:
    """One attempt. `let_go`: the worker has stopped it, because it must not go on; `cancelled`: because the run is final."""

    run: Claimed
    spec: FunctionSpec
    started_at: Micros
    log: RunLog
    task: asyncio.Task[None] | None = None
    ending: bool = False
    let_go: bool = False
    cancelled: bool = False
    progress: Progress | None = None
    shown_at: float = 0.0

    def cancel(self) -> None:
        """Stop the attempt, because the worker must let go of the run."""
        if self.task is not None and not self.task.done():
            self.let_go = True
            self.task.cancel()

    def call(self, recorder: Recorder, max_step_bytes: int, max_run_bytes: int) -> Call:
        """What the invoker is given."""
        return Call(self.run, partial(self._record, recorder), self.log.add, self._show, max_step_bytes, max_run_bytes)

    async def _record(self, recorder: Recorder, operation: Operation, fresh: bool) -> Step | None:
        step = await recorder.record(self.run, operation, fresh)
        if step is None:
            self.let_go = True
        return step

    def _show(self, done: int, total: int | None, message: str) -> None:
        self.progress = (int(done), None if total is None else int(total), message[:MAX_MESSAGE])

    def shown(self, clock: Clock, *, last: bool = False) -> WriteProgress | None:
        """What is to be written down of the run's progress now, if anything: at most twice a second."""
        now = time.monotonic()
        if self.progress is None or (not last and now - self.shown_at < PROGRESS_SECONDS):
            return None
        (done, total, message), self.progress, self.shown_at = self.progress, None, now
        return WriteProgress(self.run.run_id, done, total, message, clock())

    def finish(self, decision: Decision, outcome: Outcome | None, now: Micros, worker_id: str, *, tell: bool) -> Finish:
        """The command that ends the attempt."""
        run = self.run
        return Finish(
            run_id=run.run_id,
            fence=run.fence,
            number=run.attempt,
            worker_id=worker_id,
            started_at=self.started_at,
            first_started_at=run.first_started_at,
            finished_at=now,
            decision=decision,
            logs=self.log.take(),
            tell=tell,
            waits=bool(self.spec.cancel_on) or any(step.status == "waiting" for step in run.steps) or getattr(outcome, "waits", True),
            pending=outcome.pending if isinstance(outcome, Suspended) else (),
        )
