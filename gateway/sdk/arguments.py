"""What steps take. Each refusal is a DeclarationError that begins with the step as its author wrote it, and says what it takes."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, cast

from gateway.core.names import MAX_SIGNAL, check_name, refusal
from gateway.core.steps import NewEvent
from gateway.core.waits import check_path
from gateway.errors import DeclarationError
from gateway.sdk.event import Event


def length_of(step: str, duration: Any, parts: Mapping[str, Any]) -> timedelta:
    """How long to sleep; a length that came out below zero is none."""
    given = {unit: n for unit, n in parts.items() if n is not None}
    if duration is None and not given:
        raise DeclarationError(f"{step} needs a length, such as hours=1 or timedelta(hours=1)")
    if duration is not None and not isinstance(duration, timedelta):
        raise DeclarationError(f"{step} takes a timedelta, or days=, hours=, minutes= and seconds=; not {duration!r}")
    try:
        for unit, n in given.items():
            if not _is_number(n) or not math.isfinite(n):
                raise DeclarationError(f"{step}: `{unit}` is a number; not {n!r}")
        return max((duration or timedelta(0)) + timedelta(**given), timedelta(0))
    except OverflowError:
        raise DeclarationError(f"{step} would last beyond the year 9999") from None


def moment_of(step: str, when: Any) -> datetime:
    """When to wake up."""
    if not isinstance(when, datetime):
        raise DeclarationError(f"{step} takes an aware datetime, such as datetime.now(UTC) + timedelta(hours=1); not {when!r}")
    if when.tzinfo is None:
        raise DeclarationError(f"{step} needs a datetime with a time zone; not {when!r}")
    return when


def seconds_of(step: str, timeout: Any) -> float | None:
    """A timeout in seconds."""
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    if seconds is None:
        return None
    if not _is_number(seconds) or not 0 < seconds < math.inf:
        raise DeclarationError(f"{step}: `timeout` is a timedelta or seconds, more than 0; not {timeout!r}")
    return float(seconds)


def check_whole(step: str, option: str, n: Any, least: int, most: int | None = None) -> None:
    """A whole number within its bounds."""
    if isinstance(n, bool) or not isinstance(n, int) or n < least or (most is not None and n > most):
        raise DeclarationError(f"{step}: `{option}` is a whole number from {least}{f' to {most}' if most else ''}; not {n!r}")


def check_callable(step: str, fn: Any) -> None:
    """Something to call."""
    if inspect.iscoroutine(fn):
        fn.close()
        raise DeclarationError(f"{step} takes a function and then its arguments; not {fn.__name__}(…), which is called already")
    if not callable(fn):
        raise DeclarationError(f"{step} takes a function and then its arguments; not {fn!r}")


def check_items(step: str, items: Any) -> None:
    """Something to go through."""
    if not isinstance(items, Iterable):
        raise DeclarationError(f"{step} takes a function and a list of items; not {items!r}")


def event_of(step: str, event: Any, match: Any, if_: Any) -> tuple[type[Event[Any]], str]:
    """The class and the name of the event to wait for."""
    if match is not None and if_ is not None:
        raise DeclarationError(f"{step} takes `match` or `if_`, not both")
    if match is not None:
        check_path(f"{step}: `match`", match)
    if isinstance(event, str):
        check_name(step, event)
        return Event[Any], event
    if not (isinstance(event, type) and issubclass(event, Event) and event.event_name):
        raise DeclarationError(f"{step} takes an event class that has a name, or a name; not {event!r}")
    return cast(type[Event[Any]], event), event.event_name


def check_signal(step: str, signal: Any) -> None:
    """A signal's name, as the API takes it."""
    if not isinstance(signal, str) or not 0 < len(signal) <= MAX_SIGNAL or "\0" in signal or "/" in signal:
        raise DeclarationError(f"{step} takes a signal's name of 1 to {MAX_SIGNAL} characters without `/`; not {signal!r}")


def invoked_id(step: str, function: Any) -> str:
    """The id of the function to invoke."""
    id = function if isinstance(function, str) else getattr(function, "id", None)
    if not isinstance(id, str) or not (id is function or hasattr(function, "handler")):
        raise DeclarationError(f"{step} takes a function declared with @function, or its id; not {function!r}")
    return id


def events_of(step: str, events: Any) -> tuple[NewEvent, ...]:
    """The events to send."""
    several = isinstance(events, Iterable) and not isinstance(events, str | bytes | Mapping)
    found: list[Any] = list(cast(Iterable[Any], events)) if several else [events]
    for event in found:
        if not isinstance(event, NewEvent):
            made = "`UserCreated.new(…)` or `new_event(name, data)`"
            raise DeclarationError(f"{step} takes events made by {made}, one or a list of them; not a {type(event).__name__}")
        reason = refusal(event.name)
        if reason is not None:
            raise DeclarationError(f"{step}: {reason}")
    return tuple(found)


def _is_number(n: Any) -> bool:
    return isinstance(n, int | float) and not isinstance(n, bool)
