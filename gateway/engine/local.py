"""The invoker for Python functions in this process: coroutines on its loop, plain functions in a thread each."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import traceback
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from gateway import codec
from gateway.clock import SECOND, Clock, Micros, from_datetime, to_datetime
from gateway.core.outcome import Completed, Failed, Failure, Outcome
from gateway.engine.invoker import Call
from gateway.errors import AuthorError, DeclarationError, NonRetriableError, PayloadMismatch, RetryAfterError
from gateway.sdk.event import Event
from gateway.sdk.function import Context, Function
from gateway.store.runs import Claimed

MAX_MESSAGE = 2000
MAX_TRACEBACK = 8000
MAX_OUTPUT = 1 << 20

_logger = logging.getLogger("tidegate.function")


class LocalInvoker:
    """Invokes the functions of a registry."""

    def __init__(self, functions: Mapping[str, Function], clock: Clock) -> None:
        self._functions = functions
        self._clock = clock

    async def invoke(self, call: Call) -> Outcome:
        run = call.run
        function = self._functions[run.function_id]
        try:
            context = _context(function, run)
            async with asyncio.timeout(function.spec.timeout_seconds):
                result = await (function.handler(context) if function.is_async else _in_thread(function, context))
            return Completed(_output(result))
        except asyncio.CancelledError:
            raise
        except TimeoutError as error:
            seconds = function.spec.timeout_seconds
            mine = seconds is not None and not error.args
            message = f"the attempt took longer than its timeout of {seconds:g} s" if mine else str(error)
            return Failed(Failure("TimeoutError", message, _trace(error)))
        except RetryAfterError as error:
            return Failed(_failure(error), retry_at=_when(error, self._clock()))
        except Exception as error:
            return Failed(_failure(error), retriable=not isinstance(error, NonRetriableError | DeclarationError))
        except (SystemExit, GeneratorExit) as error:
            return Failed(_failure(error))


def _context(function: Function, run: Claimed) -> Context[Any]:
    try:
        raw = codec.member(run.body, run.data_path)
    except ValueError as error:
        raise PayloadMismatch(f"the event's data cannot be read: {error}") from None
    kind: type[Event[Any]] = function.event_type(run.event_name)
    event = kind.decode(
        raw,
        id=run.event_id,
        name=run.event_name,
        source=run.source,
        occurred_at=to_datetime(run.occurred_at),
        received_at=to_datetime(run.received_at),
        attributes=codec.loads(run.attributes),
    )
    extra = {"run_id": run.run_id, "function_id": run.function_id, "attempt": run.attempt}
    return Context(
        event=event,
        run_id=run.run_id,
        function_id=run.function_id,
        attempt=run.attempt,
        traceparent=run.traceparent,
        logger=logging.LoggerAdapter(_logger, extra),
    )


async def _in_thread(function: Function, context: Context[Any]) -> Any:
    """The result of a plain function. A thread of its own: one that hangs past its timeout takes no slot of a pool."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if not done.done():
            if error is None:
                done.set_result(result)
            else:
                done.set_exception(error)

    def call() -> None:
        try:
            result, error = carried.run(function.handler, context), None
        except StopIteration as stop:
            result, error = None, RuntimeError(f"the function raised StopIteration: {stop}")
        except BaseException as raised:  # a thread's error belongs to its run, whatever it is
            result, error = None, raised if isinstance(raised, Exception) else RuntimeError(repr(raised))
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, error)

    carried = contextvars.copy_context()
    threading.Thread(target=call, name=f"{context.function_id} {context.run_id}", daemon=True).start()
    return await done


def _output(result: Any) -> bytes:
    output = codec.dumps(result)
    if len(output) > MAX_OUTPUT:
        raise DeclarationError(f"the result is {len(output)} bytes of JSON; at most {MAX_OUTPUT} are kept: return less")
    return output


def _when(error: RetryAfterError, now: Micros) -> Micros:
    match error.when:
        case timedelta() as delta:
            return now + int(delta.total_seconds() * SECOND)
        case int() | float() as seconds:
            return now + int(seconds * SECOND)
        case when:
            return from_datetime(when)


def _failure(error: BaseException) -> Failure:
    try:
        message = str(error)
    except Exception as broken:
        message = f"its message cannot be shown: {broken!r}"
    trace = "" if isinstance(error, AuthorError) and not isinstance(error, NonRetriableError) else _trace(error)
    return Failure(type(error).__name__, _clean(message)[:MAX_MESSAGE], trace)


def _trace(error: BaseException) -> str:
    frames = traceback.TracebackException.from_exception(error, lookup_lines=True)
    return _clean("".join(frames.format()))[-MAX_TRACEBACK:]


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
