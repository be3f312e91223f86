"""`@function`: how a background function is declared, and the context it is called with."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Generic, TypeVar

from gateway.core.match import compile_condition
from gateway.core.spec import FunctionSpec
from gateway.errors import DeclarationError
from gateway.sdk.event import Event

E = TypeVar("E", bound=Event[Any])
Trigger = str | type[Event[Any]]

DECLARED = "__tidegate_functions__"

_PATTERN = re.compile(r"[\w.:/*-]{1,200}", re.ASCII)
_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class Context(Generic[E]):
    """What a function is called with. `attempt` counts from 1; `logger` carries run, function and attempt."""

    event: E
    run_id: str
    function_id: str
    attempt: int
    traceparent: str | None = None
    logger: logging.LoggerAdapter[logging.Logger] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Function:
    """A declared function: what it is called with, and its spec."""

    spec: FunctionSpec
    handler: Callable[[Context[Any]], Any]
    event_types: tuple[type[Event[Any]], ...]

    @property
    def is_async(self) -> bool:
        """Whether the handler is a coroutine function; others run in a thread."""
        return inspect.iscoroutinefunction(self.handler)

    def event_type(self, name: str) -> type[Event[Any]]:
        """The declared class for an event name, or `Event` where the function listens by name or wildcard."""
        return next((kind for kind in self.event_types if kind.event_name == name), Event)


def function(
    *,
    on: Trigger | Sequence[Trigger],
    id: str | None = None,
    if_: str | None = None,
    retries: int = 4,
    timeout: timedelta | float | None = None,
) -> Callable[[Callable[[Any], Awaitable[Any] | Any]], Function]:
    """Declare a background function.

    `on`: an event class, a name such as `stripe/invoice.paid`, a wildcard such as `github/*`, or several of them.
    `id`: what its runs are stored under; the Python name with `-` for `_` unless given. `if_`: a CEL expression over
    `event` (`event.data`, `event.name`, `event.source`, `event.attributes`); only where it is true the function runs.
    `retries`: attempts after the first, 0 to 100. `timeout`: seconds or a timedelta for each attempt.
    Raises DeclarationError when one of them is wrong.
    """
    triggers = [on] if isinstance(on, str | type) else list(on)

    def declare(handler: Callable[[Any], Awaitable[Any] | Any]) -> Function:
        if not inspect.isfunction(handler):
            raise DeclarationError(f"@function goes before a function, not {handler!r}")
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        name = id if id is not None else handler.__name__.replace("_", "-").strip("-").lower()
        _check(name, triggers, if_, retries, seconds, handler)
        types = tuple(trigger for trigger in triggers if not isinstance(trigger, str))
        spec = FunctionSpec(
            id=name,
            on=tuple(trigger if isinstance(trigger, str) else trigger.event_name for trigger in triggers),
            if_=if_,
            retries=retries,
            timeout_seconds=seconds,
            origin=f"{handler.__code__.co_filename}:{handler.__code__.co_firstlineno}",
            description=(inspect.getdoc(handler) or "").partition("\n")[0],
        )
        made = Function(spec=spec, handler=handler, event_types=types)
        # Not found by name in the module: of two functions of one name there, the first would be lost without a word.
        handler.__globals__.setdefault(DECLARED, []).append(made)
        return made

    return declare


def _check(name: str, triggers: Sequence[Any], if_: str | None, retries: Any, seconds: Any, handler: Callable[..., Any]) -> None:
    if not _ID.fullmatch(name):
        raise DeclarationError(f"function id {name!r}: use lower-case letters, digits, `-`, `_` and `.`, at most 100")
    if not triggers:
        raise DeclarationError(f"function {name!r} listens to nothing: give `on` an event class or a name")
    for trigger in triggers:
        if isinstance(trigger, str):
            if not _PATTERN.fullmatch(trigger) or ("/" not in trigger and trigger != "*"):
                raise DeclarationError(f"function {name!r}: {trigger!r} is neither an event name, such as `user/created`, nor a wildcard")
        elif not (isinstance(trigger, type) and issubclass(trigger, Event) and trigger.event_name):
            raise DeclarationError(f"function {name!r}: `on` takes event classes that have a name, and names; not {trigger!r}")
    if isinstance(retries, bool) or not isinstance(retries, int) or not 0 <= retries <= 100:
        raise DeclarationError(f"function {name!r}: `retries` is a whole number from 0 to 100, not {retries!r}")
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= 7 * 86400):
        raise DeclarationError(f"function {name!r}: `timeout` is a timedelta or seconds, more than 0 and at most 7 days; not {seconds!r}")
    if if_ is not None:
        compile_condition(if_)
    try:
        inspect.signature(handler).bind(None)
    except TypeError:
        raise DeclarationError(f"function {name!r} takes one argument, its context: def {handler.__name__}(ctx)") from None
