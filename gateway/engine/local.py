"""The invoker for Python functions in this process: coroutines on its loop, plain functions in a thread each."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

import msgspec

from gateway import codec
from gateway.clock import Clock, to_datetime
from gateway.core.outcome import Completed, Failed, Failure, Outcome
from gateway.core.waits import hash_at
from gateway.engine.branches import Branches, current
from gateway.engine.failures import failure_of, is_final, retry_at
from gateway.engine.invoker import Call
from gateway.engine.ledger import RunLedger
from gateway.errors import DeclarationError, PayloadMismatch
from gateway.sdk.context import Context, SyncContext
from gateway.sdk.event import Event
from gateway.sdk.function import Function
from gateway.sdk.step import Steps
from gateway.sdk.sync import Suspend, SyncSteps
from gateway.sdk.threads import in_thread

R = TypeVar("R")

NewLedger = Callable[[Call, Branches, int, Clock], RunLedger]

MAX_OUTPUT = 1 << 20

_logger = logging.getLogger("tidegate.function")


class LocalInvoker:
    """Invokes the functions of a registry, by what their runs are queued as."""

    def __init__(self, functions: Mapping[str, Function[Any]], clock: Clock, ledger: NewLedger = RunLedger) -> None:
        self._functions = functions
        self._clock = clock
        self._ledger = ledger

    async def invoke(self, call: Call) -> Outcome:
        function, root = self._functions[call.run.function_id], asyncio.current_task()
        assert root is not None
        branches = Branches(root, root.cancel) if function.is_async else Branches(root, lambda: branches.interrupt(), threads=1)
        token = current.set(branches)
        try:
            outcome = await self._outcome(function, call, branches)
        except asyncio.CancelledError:
            if branches.suspended is None:
                raise
            root.uncancel()
            return branches.suspended
        finally:
            branches.close()
            current.reset(token)
        # A function that catches everything must not turn being parked into an end.
        return branches.suspended or outcome

    async def _outcome(self, function: Function[Any], call: Call, branches: Branches) -> Outcome:
        ledger = self._ledger(call, branches, function.spec.retries, self._clock)
        seconds = function.spec.timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                result = await _called(function, call, branches, Steps(ledger))
            for key in ledger.unreached():
                call.say("warning", f"step {key!r} was done earlier in this run, and the function ended without coming to it again")
            for id in ledger.unawaited():
                call.say("warning", f"step {id!r} was never awaited, so that it was not done: write `await ctx.step.…`")
            return Completed(_output(result), ledger.waits)
        except asyncio.CancelledError:
            raise
        except TimeoutError as error:
            mine = seconds is not None and not error.args
            failure = failure_of(error)
            message = f"the attempt took longer than its timeout of {seconds:g} s" if mine else failure.message
            return Failed(Failure("TimeoutError", message, failure.traceback), waits=ledger.waits)
        except Suspend:
            return Failed(Failure("Suspend", "raised outside of a step"))
        except Exception as error:
            retriable = not is_final(error)
            return Failed(failure_of(error), retriable, retry_at(error, self._clock()), ledger.waits)
        except (SystemExit, GeneratorExit) as error:
            return Failed(failure_of(error), waits=ledger.waits)


async def _called(function: Function[Any], call: Call, branches: Branches, steps: Steps) -> Any:
    event, facts = _event(function, call), _facts(function, call)
    _say_what_cannot_cancel(function, call)
    if function.is_async:
        return await function.handler(Context(event=event, step=steps, **facts))
    bridge = ThreadBridge(asyncio.get_running_loop(), branches)
    return await _in_thread(function, SyncContext(event=event, step=SyncSteps(steps, bridge), **facts))


def _event(function: Function[Any], call: Call) -> Event[Any]:
    run = call.run
    try:
        raw = codec.member(run.body, run.data_path)
    except ValueError as error:
        raise PayloadMismatch(f"the event's data cannot be read: {error}") from None
    kind: type[Event[Any]] = function.event_type(run.event_name)
    return kind.decode(
        raw,
        id=run.event_id,
        name=run.event_name,
        source=run.source,
        occurred_at=to_datetime(run.occurred_at),
        received_at=to_datetime(run.received_at),
        attributes=codec.loads(run.attributes),
    )


def _facts(function: Function[Any], call: Call) -> dict[str, Any]:
    run = call.run
    extra = {"run_id": run.run_id, "function_id": function.id, "attempt": run.attempt}
    handles = run.parent_id is not None and run.parent_key is None
    return {
        **extra,
        "traceparent": run.traceparent,
        "logger": logging.LoggerAdapter(_logger, extra),
        "failure": msgspec.json.decode(run.parent_error, type=Failure) if handles and run.parent_error else None,
        "failed_run_id": run.parent_id if handles else None,
        "_progress": call.show,
    }


def _say_what_cannot_cancel(function: Function[Any], call: Call) -> None:
    """A path that the run's own event lacks is no error, other events may have it; but nothing can match it in this run."""
    cancels = [(cancel.name, cancel.match) for cancel in function.spec.cancel_on if cancel.match is not None]
    if not cancels or call.run.fence > 1:  # said once, by the first attempt
        return
    event = call.variables()
    for name, path in cancels:
        if hash_at(event, path) is None:
            call.say("warning", f"no {name} can cancel this run: its own event {event['name']} has nothing at `{path}` (cancel_on)")


class ThreadBridge:
    """From a function's threads to the loop that records its steps."""

    def __init__(self, loop: asyncio.AbstractEventLoop, branches: Branches) -> None:
        self._loop = loop
        self._branches = branches

    def wait(self, step: Coroutine[Any, Any, R]) -> R:
        if self._branches.closed and current.get() is self._branches:
            step.close()
            raise Suspend
        try:
            return asyncio.run_coroutine_threadsafe(step, self._loop).result()
        except concurrent.futures.CancelledError:
            raise Suspend from None

    def threads(self, more: int) -> None:
        self._loop.call_soon_threadsafe(self._add, more)

    def _add(self, more: int) -> None:
        self._branches.threads += more
        self._branches.look()


async def _in_thread(function: Function[Any], context: SyncContext[Any]) -> Any:
    """The result of a plain function."""

    def call() -> Any:
        try:
            return function.handler(context)
        except (Exception, Suspend, SystemExit):
            raise
        except BaseException as error:  # the end of a thread, and not of the process
            raise RuntimeError(repr(error)) from error

    return await in_thread(call, f"{context.function_id} {context.run_id}")


def _output(result: Any) -> bytes:
    output = codec.dumps(result)
    if len(output) > MAX_OUTPUT:
        raise DeclarationError(f"the result is {len(output)} bytes of JSON; at most {MAX_OUTPUT} are kept: return less")
    return output
