"""What one attempt knows of its run's steps: it recalls those that are done, and records those that it does (G5)."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import Any

import msgspec

from gateway import codec
from gateway.clock import NEVER, SECOND, Clock, Micros, from_datetime
from gateway.core.outcome import Failure
from gateway.core.retry import backoff_seconds
from gateway.core.steps import CALLS, Condition, Invoke, Kind, NewEvent, Operation, Send, Step, StepEnded, TimeOut, WaitEvent, WaitSignal
from gateway.core.waits import any_event, on_expression, on_match
from gateway.engine.branches import Branches, current
from gateway.engine.failures import failure_of, is_final, retry_at
from gateway.engine.invoker import Call
from gateway.engine.runlog import step_key
from gateway.errors import DeclarationError, StepError, StepMismatch, StepTooLarge
from gateway.sdk.step import Options, Work

MAX_ID = 200


class _Identified(msgspec.Struct):
    id: str


_identified = msgspec.json.Decoder(_Identified).decode


class RunLedger:
    """The ledger of one attempt at a run."""

    def __init__(self, call: Call, branches: Branches, retries: int, clock: Clock) -> None:
        self._call = call
        self._branches = branches
        self._retries = retries
        self._clock = clock
        self._known = {step.key: step for step in call.run.steps}
        self._size = sum(len(step.output or b"") for step in call.run.steps)
        self._uses: dict[str, int] = {}
        self._reached: set[str] = set()
        self._waited = any(step.status == "waiting" and step.kind != "sleep" for step in call.run.steps)
        self._made: list[tuple[str, Coroutine[Any, Any, Any]]] = []
        self._position = max((step.position for step in call.run.steps), default=0)

    def unreached(self) -> list[str]:
        """Steps that the run remembers and this attempt has not come to: the function does not do what it did before."""
        return [key for key in self._known if key not in self._reached]

    def made(self, id: str, step: Coroutine[Any, Any, Any]) -> None:
        self._made.append((id, step))

    def unawaited(self) -> list[str]:
        """Steps that were made in this attempt, and never begun."""
        return [id for id, step in self._made if inspect.getcoroutinestate(step) == inspect.CORO_CREATED]

    @property
    def waits(self) -> bool:
        """Whether the run may have left waits behind."""
        return self._waited

    async def run(self, id: str, work: Work, options: Options) -> bytes:
        key, step = self._take(id, "run")
        if step is not None and step.status != "retrying":
            return _result(step)
        now = self._clock()
        if step is not None and step.due_at is not None and step.due_at > now:
            await self._branches.park(step.due_at, "retry")
        number = 1 if step is None else step.attempts + 1
        made = Step(key, "run", "succeeded", self._place(step), number, now)
        with self._branches.busy():
            tried = await self._try(made, work, options)
            tried = await self._commit(StepEnded(tried))
        if tried.status == "retrying":
            await self._branches.park(tried.due_at or now, "retry")
        return _result(tried)

    async def _try(self, step: Step, work: Work, options: Options) -> Step:
        """The step as one try has made it."""
        token, limit = step_key.set(step.key), asyncio.timeout(options.timeout)
        try:
            async with limit:
                result = await work()
            output = self._fitting(codec.dumps(result))
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            if limit.expired() and isinstance(error, TimeoutError):  # asyncio's own, which has no words
                error.args = (f"it took longer than its timeout of {options.timeout:g} s",)
            return self._failed(step, error, self._retries if options.retries is None else options.retries)
        finally:
            step_key.reset(token)
        return msgspec.structs.replace(step, finished_at=self._clock(), output=output)

    def _failed(self, step: Step, error: BaseException, retries: int) -> Step:
        now, failure = self._clock(), failure_of(error)
        if is_final(error) or step.attempts > retries:
            return msgspec.structs.replace(step, status="failed", finished_at=now, error=failure)
        due_at = retry_at(error, now)
        if due_at is None:
            due_at = now + int(backoff_seconds(step.attempts) * SECOND)
        return msgspec.structs.replace(step, status="retrying", due_at=max(due_at, now), error=failure)

    def _fitting(self, output: bytes) -> bytes:
        if len(output) > self._call.max_step_bytes:
            raise StepTooLarge(
                f"the result is {len(output):,} bytes of JSON, and a step keeps at most {self._call.max_step_bytes:,}:"
                " keep it elsewhere and return where (TIDEGATE_MAX_STEP_BYTES raises the limit)"
            )
        if self._size + len(output) > self._call.max_run_bytes:
            raise StepTooLarge(
                f"with this result the steps of the run would be {self._size + len(output):,} bytes of JSON, and a run keeps at most"
                f" {self._call.max_run_bytes:,}: return less (TIDEGATE_MAX_RUN_BYTES raises the limit)"
            )
        self._size += len(output)
        return output

    async def sleep(self, id: str, length: timedelta | datetime) -> None:
        key, step = self._take(id, "sleep")
        if step is None:
            now = self._clock()
            due_at = min(from_datetime(length), NEVER) if isinstance(length, datetime) else _due(key, "sleep", now, length.total_seconds())
            made = Step(key, "sleep", "waiting", self._place(None), 0, now, due_at=due_at)
            with self._branches.busy():
                step = await self._commit(StepEnded(made))
        if (step.due_at or 0) > self._clock():
            await self._branches.park(step.due_at or 0, "sleep")

    async def event(self, id: str, name: str, match: str | None, if_: str | None, seconds: float | None) -> bytes | None:
        key, step = self._take(id, "event")
        if step is None or step.status == "waiting":
            condition = self._condition(id, name, match, if_)
            made = step or self._waiting(key, "event", name, seconds)
            # An attempt that died between its commit and its look must look again.
            with self._branches.busy():
                step = await self._commit(WaitEvent(made, condition))
        return await self._come(step)

    def _condition(self, id: str, name: str, match: str | None, if_: str | None) -> Condition:
        """Which event a wait is for."""
        variables = self._call.variables()
        try:
            if match is not None:
                condition = on_match(name, match, variables)
            else:
                condition = on_expression(name, if_, variables) if if_ is not None else any_event(name)
        except DeclarationError as error:
            raise DeclarationError(f"{CALLS['event']}({id!r}): {error}") from None
        return msgspec.structs.replace(condition, exclude=self._had(name))

    def _had(self, name: str) -> tuple[str, ...]:
        """The run's own event, and those of this name that it has waited for: in a loop, each wait gets another one."""
        outputs = [step.output for step in self._known.values() if step.kind == "event" and step.subject == name and step.output]
        return (self._call.run.event_id, *(_identified(output).id for output in outputs))

    async def signal(self, id: str, signal: str, seconds: float | None) -> bytes | None:
        key, step = self._take(id, "signal")
        if step is None:
            with self._branches.busy():
                step = await self._commit(WaitSignal(self._waiting(key, "signal", signal, seconds)))
        return await self._come(step)

    async def invoke(self, id: str, function_id: str, data: bytes, seconds: float | None) -> bytes:
        key, step = self._take(id, "invoke")
        if step is None:
            made = self._waiting(key, "invoke", None, seconds)
            with self._branches.busy():
                step = await self._commit(Invoke(made, function_id, self._fitting(data)))
        late = Failure("TimeoutError", f"run {step.subject} of {function_id!r} has not ended in time; it goes on")
        output = await self._come(step, late)
        return output or b"null"

    async def send(self, id: str, events: tuple[NewEvent, ...]) -> bytes:
        key, step = self._take(id, "send")
        if step is None:
            now = self._clock()
            made = Step(key, "send", "succeeded", self._place(None), 0, now, finished_at=now)
            with self._branches.busy():
                step = await self._commit(Send(made, events))
        return _result(step)

    async def _come(self, step: Step, late: Failure | None = None) -> bytes | None:
        """What a step waits for, or None, or the error `late`, once it has waited long enough."""
        now = self._clock()
        if step.status == "waiting" and step.due_at is not None and step.due_at <= now:
            given_up = msgspec.structs.replace(step, status="failed" if late else "succeeded", finished_at=now, error=late)
            with self._branches.busy():
                step = await self._commit(TimeOut(given_up))
        if step.status == "waiting":
            await self._branches.park(step.due_at or NEVER, step.kind, step.key)
        if step.status == "failed":
            _result(step)
        return step.output

    def _waiting(self, key: str, kind: Kind, subject: str | None, seconds: float | None) -> Step:
        now, self._waited = self._clock(), True
        due_at = None if seconds is None else _due(key, kind, now, seconds)
        return Step(key, kind, "waiting", self._place(None), 0, now, due_at=due_at, subject=subject)

    def _take(self, id: str, kind: Kind) -> tuple[str, Step | None]:
        """The key for the next use of an id, and what the run remembers of it."""
        self._belongs(id)
        outer = step_key.get()
        if outer is not None:
            raise DeclarationError(f"step {id!r} is inside of step {outer!r}: a step is one thing that is done once; put them side by side")
        if not isinstance(id, str) or not 0 < len(id) <= MAX_ID or "#" in id or not id.isprintable():  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DeclarationError(f"a step's id is a text of at most {MAX_ID} characters without `#`; not {id!r}")
        self._uses[id] = self._uses.get(id, 0) + 1
        key = id if self._uses[id] == 1 else f"{id}#{self._uses[id]}"
        self._reached.add(key)
        step = self._known.get(key)
        if step is not None and step.kind != kind:
            raise StepMismatch(
                f"step {key!r} was `{CALLS[step.kind]}` when this run came to it, and is `{CALLS[kind]}` in today's code:"
                " give the new step an id of its own, or raise the function's `version`"
            )
        return key, step

    def _belongs(self, id: str) -> None:
        """Raises where the attempt is over: CancelledError in what is left of it, DeclarationError in what is none of its tasks."""
        here, closed = current.get(), self._branches.closed
        if here is not self._branches and (closed or here is not None):
            run = self._call.run
            raise DeclarationError(
                f"step {id!r} was called on the `ctx` of another attempt, number {run.attempt} of run {run.run_id}"
                f"{', which has ended' if closed else ''}: use the one that the function is called with"
            )
        if closed:
            raise asyncio.CancelledError("the attempt has ended")

    def _place(self, step: Step | None) -> int:
        """Where the step stands among those of the run, in the order they began."""
        if step is not None:
            return step.position
        self._position += 1
        return self._position

    async def _commit(self, operation: Operation) -> Step:
        """The step as it is recorded. Where the run has another holder by now, this attempt ends here (G6)."""
        step = await self._call.record(operation, operation.step.key not in self._known)
        if step is None:
            self._branches.closed = True
            raise asyncio.CancelledError("the run has another holder")
        self._known[step.key] = step
        return step


def _due(key: str, kind: Kind, now: Micros, seconds: float) -> Micros:
    if seconds * SECOND > NEVER - now:
        raise DeclarationError(f"{CALLS[kind]}({key!r}) would last beyond the year 9999")
    return now + int(seconds * SECOND)


def _result(step: Step) -> bytes:
    if step.status == "failed":
        error = step.error or Failure("Error", "it has failed")
        raise StepError(step.key, error.type, error.message, error.traceback)
    return step.output if step.output is not None else b"null"
