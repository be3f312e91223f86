"""`@function`: how a background function is declared."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, Protocol, TypeVar, cast, overload

from gateway.core.match import compile_condition
from gateway.core.names import check_name, check_pattern
from gateway.core.spec import CancelSpec, FunctionSpec
from gateway.core.waits import check_path
from gateway.errors import DeclarationError
from gateway.sdk.event import Event

R = TypeVar("R")
Trigger = str | type[Event[Any]]
Seconds = timedelta | float
Handler = Callable[[Any], Awaitable[Any] | Any]

DECLARED = "__tidegate_functions__"
INVOKED = "tidegate/function.invoked"
DAY = 86400.0

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class Function(Generic[R]):
    """A declared function: what it is called with, and its spec. `failure` is its `on_failure` handler, a function itself."""

    spec: FunctionSpec
    handler: Callable[[Any], Awaitable[R] | R]
    event_types: tuple[type[Event[Any]], ...]
    failure: Function[Any] | None = None

    @property
    def id(self) -> str:
        """What its runs are stored under."""
        return self.spec.id

    @property
    def is_async(self) -> bool:
        """Whether the handler is a coroutine function; others run in a thread."""
        return inspect.iscoroutinefunction(self.handler)

    def event_type(self, name: str) -> type[Event[Any]]:
        """The declared class for an event name, or `Event` where the function listens by name or wildcard.

        An invoked function gets its data as the one class that it declares.
        """
        if name == INVOKED and len(self.event_types) == 1:
            return self.event_types[0]
        return next((kind for kind in self.event_types if kind.event_name == name), Event)


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """Limits of a whole run, after which it is cancelled: `start` from its creation to its start, `finish` from its first start
    to its end, sleeps and waits included."""

    start: Seconds | None = None
    finish: Seconds | None = None

    def __post_init__(self) -> None:
        if self.start is None and self.finish is None:
            raise DeclarationError("Timeouts takes `start` or `finish`, or both; with neither it limits nothing: leave it out")


@dataclass(frozen=True, kw_only=True)
class Idempotency:
    """Of events for which the CEL expression `key` gives the same value, only the first within `window` gets a run."""

    key: str
    window: Seconds = DAY


class CancelOn:
    """Cancel a run when this event arrives: one whose value at the path `match` is that of the run's own event, or for which
    `if_` is true, in CEL over `event`, the run's own, and `async`, the one that arrives; within `timeout` of the run's creation.
    """

    def __init__(
        self,
        event: Trigger,
        *,
        match: str | None = None,
        if_: str | None = None,
        timeout: Seconds | None = None,
    ) -> None:
        if (match is None) == (if_ is None):
            raise DeclarationError("CancelOn takes `match` or `if_`: else any event of that name would cancel every run")
        if if_ is not None:
            compile_condition(if_, ("event", "async"))
        if match is not None:
            check_path("`match` of CancelOn", match)
        if isinstance(event, str):
            check_name("CancelOn", event, "; for several events give a list of several CancelOn")
        else:
            _check_trigger("CancelOn", event)
        name = event if isinstance(event, str) else event.event_name
        self.spec = CancelSpec(name=name, match=match, if_=if_, timeout_seconds=_seconds("`timeout` of CancelOn", timeout))


class Declare(Protocol):
    """What `function(…)` returns: it turns a handler into a Function that knows what the handler returns."""

    @overload
    def __call__(self, handler: Callable[[Any], Awaitable[R]], /) -> Function[R]: ...

    @overload
    def __call__(self, handler: Callable[[Any], R], /) -> Function[R]: ...


def function(
    *,
    on: Trigger | Sequence[Trigger] = (),
    id: str | None = None,
    if_: str | None = None,
    retries: int = 4,
    timeout: Seconds | None = None,
    timeouts: Timeouts | None = None,
    idempotency: str | Idempotency | None = None,
    cancel_on: CancelOn | Sequence[CancelOn] = (),
    on_failure: Handler | None = None,
    version: int | None = None,
) -> Declare:
    """Declare a background function.

    `on`: an event class, a name such as `stripe/invoice.paid`, a wildcard such as `github/*`, or several of them; without
    it the function runs when it is invoked. `id`: what its runs are stored under; the Python name with `-` for `_` unless
    given. `if_`: a CEL expression over `event` (`event.data`, `event.name`, `event.source`, `event.attributes`); only where
    it is true the function runs. `retries`: attempts after the first, 0 to 100; of each step too. `timeout`: seconds or a
    timedelta for each attempt. `timeouts`: limits of the whole run. `idempotency`: a CEL expression; of events for which it
    gives the same value within a day only the first gets a run. `cancel_on`: events that cancel a run. `on_failure`: called
    with the failed run's event and error, as a run of its own with the default `retries`. `version`: a whole number to raise
    when steps change; runs go on with the version that began them, for as long as it is declared too.
    Raises DeclarationError when one of them is wrong.
    """
    triggers = _listed(on, str | type, "`on` takes an event class, an event name or a wildcard")
    cancels = _listed(cancel_on, CancelOn, "`cancel_on` takes CancelOn(event, match=…)")
    once = Idempotency(key=idempotency) if isinstance(idempotency, str) else idempotency
    if once is not None:
        _require(once, Idempotency, "`idempotency` takes a CEL expression, such as 'event.data.id', or Idempotency(key=…)")
        compile_condition(once.key, option="idempotency")
    if timeouts is not None:
        _require(timeouts, Timeouts, "`timeouts` takes Timeouts(start=…, finish=…)")

    def declare(handler: Handler) -> Function[Any]:
        if not inspect.isfunction(handler):
            raise DeclarationError(f"@function goes before a function, not {handler!r}")
        name = id if id is not None else handler.__name__.replace("_", "-").strip("-").lower()
        _check(name, triggers, if_, retries, handler)
        if version is not None and (isinstance(version, bool) or not isinstance(version, int) or version < 1):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DeclarationError(f"function {name!r}: `version` is a whole number from 1, not {version!r}")
        types = tuple(trigger for trigger in triggers if not isinstance(trigger, str))
        spec = FunctionSpec(
            id=name,
            on=tuple(trigger if isinstance(trigger, str) else trigger.event_name for trigger in triggers),
            if_=if_,
            retries=retries,
            timeout_seconds=_seconds(f"function {name!r}: `timeout`", timeout, at_most=7 * DAY),
            origin=f"{handler.__code__.co_filename}:{handler.__code__.co_firstlineno}",
            description=(inspect.getdoc(handler) or "").partition("\n")[0],
            version=version,
            start_seconds=_seconds(f"function {name!r}: `timeouts.start`", timeouts and timeouts.start),
            finish_seconds=_seconds(f"function {name!r}: `timeouts.finish`", timeouts and timeouts.finish),
            idempotency=once.key if once else None,
            idempotency_seconds=_seconds(f"function {name!r}: `window`", once.window) or DAY if once else DAY,
            cancel_on=tuple(cancel.spec for cancel in cancels),
            on_failure=f"{name}.on-failure" if on_failure else None,
        )
        failure = _handler_of(spec, types, on_failure) if on_failure is not None else None
        made = Function[Any](spec=spec, handler=handler, event_types=types, failure=failure)
        # Not found by name in the module: of two functions of one name there, the first would be lost without a word.
        handler.__globals__.setdefault(DECLARED, []).append(made)
        return made

    return declare


def _handler_of(spec: FunctionSpec, types: tuple[type[Event[Any]], ...], on_failure: Handler) -> Function[Any]:
    """An `on_failure` handler as a function that nothing triggers but the failure."""
    if not inspect.isfunction(on_failure):
        raise DeclarationError(f"function {spec.id!r}: `on_failure` takes a function, not {on_failure!r}")
    _takes_context(f"{spec.id!r}: `on_failure`", on_failure)
    code = on_failure.__code__
    own = FunctionSpec(
        id=f"{spec.id}.on-failure",
        on=(),
        origin=f"{code.co_filename}:{code.co_firstlineno}",
        description=(inspect.getdoc(on_failure) or "").partition("\n")[0],
    )
    return Function(spec=own, handler=on_failure, event_types=types)


def _check(name: str, triggers: Sequence[Any], if_: str | None, retries: Any, handler: Callable[..., Any]) -> None:
    if not _ID.fullmatch(name):
        raise DeclarationError(f"function id {name!r}: use lower-case letters, digits, `-`, `_` and `.`, at most 100")
    for trigger in triggers:
        _check_trigger(f"function {name!r}: `on`", trigger)
    if isinstance(retries, bool) or not isinstance(retries, int) or not 0 <= retries <= 100:
        raise DeclarationError(f"function {name!r}: `retries` is a whole number from 0 to 100, not {retries!r}")
    if if_ is not None:
        compile_condition(if_)
    _takes_context(f"{name!r}", handler)


def _check_trigger(what: str, trigger: Any) -> None:
    if isinstance(trigger, str):
        check_pattern(what, trigger)
    elif not (isinstance(trigger, type) and issubclass(trigger, Event) and trigger.event_name):
        raise DeclarationError(f"{what} takes event classes that have a name, and names; not {trigger!r}")


def _listed(given: Any, kind: Any, takes: str) -> list[Any]:
    """An option that is one or several; raises DeclarationError with what it `takes`."""
    if isinstance(given, kind):
        return [given]
    several = isinstance(given, Iterable) and not isinstance(given, str)
    found: list[Any] = list(cast(Iterable[Any], given)) if several else [given]
    for one in found:
        _require(one, kind, f"{takes}, or a list of them")
    return found


def _require(given: Any, kind: Any, takes: str) -> None:
    if not isinstance(given, kind):
        raise DeclarationError(f"{takes}; not {given!r}")


def _takes_context(what: str, handler: Callable[..., Any]) -> None:
    try:
        inspect.signature(handler).bind(None)
    except TypeError:
        raise DeclarationError(f"function {what} takes one argument, its context: def {handler.__name__}(ctx)") from None


def _seconds(what: str, given: Any, *, at_most: float = 366 * DAY) -> float | None:
    seconds = given.total_seconds() if isinstance(given, timedelta) else given
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= at_most:
        raise DeclarationError(f"{what} is a timedelta or seconds, more than 0 and at most {at_most / DAY:g} days; not {given!r}")
    return float(seconds)
