"""Errors of functions and steps, as they are kept: with the author's frames, and without ours."""

from __future__ import annotations

import traceback
from datetime import timedelta
from typing import cast

from gateway.clock import SECOND, Micros, from_datetime
from gateway.core.outcome import Failure
from gateway.errors import AuthorError, DeclarationError, NonRetriableError, RetryAfterError, StepError
from gateway.traces import authors_part

MAX_MESSAGE = 2000
MAX_TRACEBACK = 8000


def failure_of(error: BaseException) -> Failure:
    """An error with its message and traceback, within bounds; of a step that failed, the step's own traceback."""
    try:
        message = str(error)
    except Exception as broken:
        message = f"its message cannot be shown: {broken!r}"
    return Failure(type(error).__name__, clean(message)[:MAX_MESSAGE], _trace(error))


def is_final(error: BaseException) -> bool:
    """Whether trying again is no use."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_final(one) for one in cast(BaseExceptionGroup[BaseException], error).exceptions)
    return isinstance(error, NonRetriableError | DeclarationError | StepError)


def retry_at(error: BaseException, now: Micros) -> Micros | None:
    """The time at which an error asks to be tried again."""
    if not isinstance(error, RetryAfterError):
        return None
    match error.when:
        case timedelta() as delta:
            return now + int(delta.total_seconds() * SECOND)
        case int() | float() as seconds:
            return now + int(seconds * SECOND)
        case when:
            return from_datetime(when)


def clean(text: str) -> str:
    """Text that both databases keep."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def _trace(error: BaseException) -> str:
    if isinstance(error, StepError):
        return error.traceback
    if isinstance(error, AuthorError) and not isinstance(error, NonRetriableError):
        return ""
    frames = traceback.TracebackException.from_exception(error, lookup_lines=True)
    return clean(authors_part("".join(frames.format())))[-MAX_TRACEBACK:]
