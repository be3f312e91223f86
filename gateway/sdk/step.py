"""`ctx.step`: the parts of a run that are remembered, and what a run can wait for.

A function may run from its beginning many times: after a crash, a failed try, a sleep, a deploy. What it did in a step is not
done again, the step's result is there at once. So whatever has an effect, and whatever may come out differently, belongs
into a step; the code between steps should only decide which one is next.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache, partial
from typing import Any, ParamSpec, Protocol, TypeVar, cast, get_type_hints, overload

import msgspec

from gateway import codec
from gateway.clock import to_datetime
from gateway.core.names import check_sendable
from gateway.core.steps import NewEvent
from gateway.errors import DeclarationError
from gateway.sdk.event import Event
from gateway.sdk.threads import in_thread

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")
V = TypeVar("V", bound=Event[Any])
Seconds = timedelta | float

SIDE_BY_SIDE = 20


@dataclass(frozen=True, slots=True)
class Options:
    """How steps are tried: `retries` after the first try (the function's own, unless given), seconds for each."""

    retries: int | None = None
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """What a step does: a callable with its arguments; a plain one is called in a thread."""

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    async def __call__(self) -> Any:
        if inspect.iscoroutinefunction(self.fn):
            return await self.fn(*self.args, **self.kwargs)
        result = await in_thread(partial(self.fn, *self.args, **self.kwargs), "step")
        return await result if inspect.isawaitable(result) else result


class Arrived(msgspec.Struct, frozen=True):
    """An event that was waited for, as the run remembers it."""

    id: str
    name: str
    source: str
    occurred_at: int
    received_at: int
    attributes: msgspec.Raw
    data: msgspec.Raw


class Ledger(Protocol):
    """What one run remembers, as its steps see it. JSON in and out; every method raises StepError for a step that failed."""

    async def run(self, id: str, work: Work, options: Options) -> bytes: ...

    async def sleep(self, id: str, length: timedelta | datetime) -> None: ...

    async def event(self, id: str, name: str, match: str | None, if_: str | None, seconds: float | None) -> bytes | None: ...

    async def signal(self, id: str, signal: str, seconds: float | None) -> bytes | None: ...

    async def invoke(self, id: str, function_id: str, data: bytes, seconds: float | None) -> bytes: ...

    async def send(self, id: str, events: tuple[NewEvent, ...]) -> bytes: ...


class Invocable(Protocol[R_co]):
    """A declared function, as something that can be invoked: its id, and what it returns."""

    @property
    def id(self) -> str: ...

    @property
    def handler(self) -> Callable[[Any], Awaitable[R_co] | R_co]: ...


class Steps:
    """The steps of a run of an `async` function. An id is unique within the function; in a loop it is numbered."""

    def __init__(self, ledger: Ledger, options: Options = Options()) -> None:
        self._ledger = ledger
        self._options = options

    def with_options(self, *, retries: int | None = None, timeout: Seconds | None = None) -> Steps:
        """These steps with other options for `run` and `map`: `retries` after the first try, `timeout` for each."""
        if retries is not None and not 0 <= retries <= 100:
            raise DeclarationError(f"`retries` of a step is a whole number from 0 to 100, not {retries!r}")
        given = Options(retries, _seconds(timeout))
        changed = {name: value for name in ("retries", "timeout") if (value := getattr(given, name)) is not None}
        return Steps(self._ledger, replace(self._options, **changed))

    @overload
    async def run(self, id: str, fn: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    @overload
    async def run(self, id: str, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    async def run(self, id: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call `fn` and remember what it returns, as JSON of at most 1 MiB; a plain function is called in a thread.

        The result is what `fn` says it returns: a pydantic model, dataclass, struct or TypedDict comes back as itself.
        When it raises, it is tried again, `retries` times, each later than the last; then StepError is raised here, now and
        whenever the function runs again. NonRetriableError fails the step at once; RetryAfterError sets the time.
        """
        return _typed(returned(fn), await self._ledger.run(id, Work(fn, args, kwargs), self._options), id)

    async def map(
        self, id: str, fn: Callable[[T], Awaitable[R]] | Callable[[T], R], items: Iterable[T], *, limit: int = SIDE_BY_SIDE
    ) -> list[R]:
        """`run` for each item, at most `limit` at a time; the results in the order of the items. Their ids are `id/0`, `id/1`, …"""
        places = asyncio.Semaphore(limit)

        async def one(n: int, item: T) -> R:
            async with places:
                return await self.run(f"{id}/{n}", cast(Callable[[T], Awaitable[R]], fn), item)

        return list(await asyncio.gather(*(one(n, item) for n, item in enumerate(items))))

    async def sleep(
        self, id: str, duration: timedelta = timedelta(0), *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0
    ) -> None:
        """Go on after a time, counted from when this is reached first. Meanwhile the run costs a row and nothing else."""
        length = duration + timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        await self._ledger.sleep(id, length)

    async def sleep_until(self, id: str, when: datetime) -> None:
        """Go on at a time, which is an aware datetime; at once if it is over. Raises DeclarationError for a naive one."""
        if when.tzinfo is None:
            raise DeclarationError(f"step.sleep_until({id!r}) needs a datetime with a time zone")
        await self._ledger.sleep(id, when)

    @overload
    async def wait_for_event(
        self, id: str, event: type[V], *, match: str | None = None, if_: str | None = None, timeout: Seconds | None = None
    ) -> V | None: ...

    @overload
    async def wait_for_event(
        self, id: str, event: str, *, match: str | None = None, if_: str | None = None, timeout: Seconds | None = None
    ) -> Event[Any] | None: ...

    async def wait_for_event(
        self, id: str, event: type[Event[Any]] | str, *, match: str | None = None, if_: str | None = None, timeout: Seconds | None = None
    ) -> Event[Any] | None:
        """Wait for an event, given by class or name, that arrives or has arrived since the run began; None at the timeout.

        `match`: a path, such as `data.order_id`, whose value must be the same as in the event that triggered the run.
        `if_`: a CEL expression over `event`, that one, and `async`, the one that arrives.
        """
        kind = Event[Any] if isinstance(event, str) else event
        name = event if isinstance(event, str) else event.event_name
        if match is not None and if_ is not None:
            raise DeclarationError(f"step.wait_for_event({id!r}) takes `match` or `if_`, not both")
        raw = await self._ledger.event(id, name, match, if_, _seconds(timeout))
        return None if raw is None else _event(kind, raw)

    async def wait_for_signal(self, id: str, signal: str, *, timeout: Seconds | None = None) -> Any:
        """Wait for `POST /api/v1/signals/{signal}`; returns its data as plain JSON values, or None at the timeout."""
        raw = await self._ledger.signal(id, signal, _seconds(timeout))
        return None if raw is None else codec.loads(raw)

    @overload
    async def invoke(self, id: str, function: Invocable[R], data: Any = None, *, timeout: Seconds | None = None) -> R: ...

    @overload
    async def invoke(self, id: str, function: str, data: Any = None, *, timeout: Seconds | None = None) -> Any: ...

    async def invoke(self, id: str, function: Invocable[Any] | str, data: Any = None, *, timeout: Seconds | None = None) -> Any:
        """Start a run of another function, given as declared or by id, with `data` as its event's; returns what it returns.

        Raises StepError when that run fails or is cancelled, or has not ended at the timeout.
        """
        named = function if isinstance(function, str) else function.id
        raw = await self._ledger.invoke(id, named, codec.dumps(data), _seconds(timeout))
        return _typed(Any if isinstance(function, str) else returned(function.handler), raw, id)

    async def send_event(self, id: str, events: NewEvent | Sequence[NewEvent]) -> list[str]:
        """Send events, made by `UserCreated.new(…)` or `new_event(…)`, once; returns their ids."""
        given = (events,) if isinstance(events, NewEvent) else tuple(events)
        return cast(list[str], codec.loads(await self._ledger.send(id, given)))


def new_event(name: str, data: Any = None, *, id: str | None = None) -> NewEvent:
    """An event to send; `id` makes it the same event when it is sent again."""
    check_sendable(name)
    return NewEvent(name, codec.dumps(data), id)


@lru_cache(maxsize=1024)
def returned(fn: Callable[..., Any]) -> Any:
    """What a function says it returns, or Any."""
    try:
        found = get_type_hints(inspect.unwrap(fn) if inspect.isroutine(fn) else fn.__call__).get("return", Any)
    except (NameError, TypeError, AttributeError):
        return Any
    return type(None) if found is None else found


def _typed(kind: Any, raw: bytes, id: str) -> Any:
    try:
        return codec.decode_as(kind, raw, f"step {id!r}: what its function returned")
    except TypeError:  # an annotation that JSON has no form for
        return codec.loads(raw)


def _event(kind: type[Event[Any]], raw: bytes) -> Event[Any]:
    arrived = msgspec.json.decode(raw, type=Arrived)
    return kind.decode(
        bytes(arrived.data),
        id=arrived.id,
        name=arrived.name,
        source=arrived.source,
        occurred_at=to_datetime(arrived.occurred_at),
        received_at=to_datetime(arrived.received_at),
        attributes=codec.loads(bytes(arrived.attributes)),
    )


def _seconds(given: Seconds | None) -> float | None:
    seconds = given.total_seconds() if isinstance(given, timedelta) else given
    if seconds is not None and seconds <= 0:
        raise DeclarationError(f"a timeout is a timedelta or seconds, more than 0; not {given!r}")
    return seconds
