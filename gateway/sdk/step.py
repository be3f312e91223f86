"""`ctx.step`: the parts of a run that are remembered, and what a run can wait for.

A function may run from its beginning many times: after a crash, a failed try, a sleep, a deploy. What it did in a step is not
done again, the step's result is there at once. So whatever has an effect, and whatever may come out differently, belongs
into a step; the code between steps should only decide which one is next.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache, partial, wraps
from typing import Any, ParamSpec, Protocol, TypeVar, cast, get_type_hints, overload

import msgspec

from gateway import codec
from gateway.clock import to_datetime
from gateway.core.names import check_sendable
from gateway.core.steps import NewEvent
from gateway.sdk.arguments import (
    check_callable,
    check_items,
    check_signal,
    check_whole,
    event_of,
    events_of,
    invoked_id,
    length_of,
    moment_of,
    seconds_of,
)
from gateway.sdk.event import Event
from gateway.sdk.threads import in_thread

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")
V = TypeVar("V", bound=Event[Any])
F = TypeVar("F", bound=Callable[..., Coroutine[Any, Any, Any]])
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
    """What one run remembers, as its steps see it. JSON in and out; every method raises StepError for a step that failed.

    `made` hears of each step before it is awaited.
    """

    def made(self, id: str, step: Coroutine[Any, Any, Any]) -> None: ...

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


def _noted(method: F) -> F:
    """A step that its ledger knows of from when it is made: one that nobody awaits is never done, and the run should say so."""

    @wraps(method)
    def made(*args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        step = method(*args, **kwargs)
        steps, id = args[0], args[1] if len(args) > 1 else kwargs["id"]
        cast(Steps, steps)._ledger.made(id, step)  # pyright: ignore[reportPrivateUsage]
        return step

    return cast(F, made)


class Steps:
    """The steps of a run of an `async` function. An id is unique within the function; in a loop it is numbered."""

    def __init__(self, ledger: Ledger, options: Options = Options()) -> None:
        self._ledger = ledger
        self._options = options

    def with_options(self, *, retries: int | None = None, timeout: Seconds | None = None) -> Steps:
        """These steps with other options for `run` and `map`: `retries` after the first try, `timeout` for each."""
        if retries is not None:
            check_whole("step.with_options", "retries", retries, 0, 100)
        given = Options(retries, seconds_of("step.with_options", timeout))
        changed = {name: value for name in ("retries", "timeout") if (value := getattr(given, name)) is not None}
        return Steps(self._ledger, replace(self._options, **changed))

    @overload
    async def run(self, id: str, fn: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    @overload
    async def run(self, id: str, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    @_noted
    async def run(self, id: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call `fn` and remember what it returns, as JSON of at most 1 MiB; a plain function is called in a thread.

        The result is what `fn` says it returns: a pydantic model, dataclass, struct or TypedDict comes back as itself.
        When it raises, it is tried again, `retries` times, each later than the last; then StepError is raised here, now and
        whenever the function runs again. NonRetriableError fails the step at once; RetryAfterError sets the time.
        """
        check_callable(f"step.run({id!r})", fn)
        return _typed(returned(fn), await self._ledger.run(id, Work(fn, args, kwargs), self._options), id)

    @_noted
    async def map(
        self, id: str, fn: Callable[[T], Awaitable[R]] | Callable[[T], R], items: Iterable[T], *, limit: int = SIDE_BY_SIDE
    ) -> list[R]:
        """`run` for each item, at most `limit` at a time; the results in the order of the items. Their ids are `id/0`, `id/1`, …"""
        check_callable(f"step.map({id!r})", fn)
        check_items(f"step.map({id!r})", items)
        check_whole(f"step.map({id!r})", "limit", limit, 1)
        places = asyncio.Semaphore(limit)

        async def one(n: int, item: T) -> R:
            async with places:
                return await self.run(f"{id}/{n}", cast(Callable[[T], Awaitable[R]], fn), item)

        return list(await asyncio.gather(*(one(n, item) for n, item in enumerate(items))))

    @_noted
    async def sleep(
        self,
        id: str,
        duration: timedelta | None = None,
        *,
        days: float | None = None,
        hours: float | None = None,
        minutes: float | None = None,
        seconds: float | None = None,
    ) -> None:
        """Go on after a time, counted from when this is reached first; at once if that is none, or less. Meanwhile the run costs
        a row and nothing else."""
        parts = {"days": days, "hours": hours, "minutes": minutes, "seconds": seconds}
        await self._ledger.sleep(id, length_of(f"step.sleep({id!r})", duration, parts))

    @_noted
    async def sleep_until(self, id: str, when: datetime) -> None:
        """Go on at a time, which is an aware datetime; at once if it is over. Raises DeclarationError for a naive one."""
        await self._ledger.sleep(id, moment_of(f"step.sleep_until({id!r})", when))

    @overload
    async def wait_for_event(
        self, id: str, event: type[V], *, match: str | None = None, if_: str | None = None, timeout: Seconds | None = None
    ) -> V | None: ...

    @overload
    async def wait_for_event(
        self, id: str, event: str, *, match: str | None = None, if_: str | None = None, timeout: Seconds | None = None
    ) -> Event[Any] | None: ...

    @_noted
    async def wait_for_event(
        self, id: str, event: type[Event[Any]] | str, *, match: str | None = None, if_: str | None = None, timeout: Seconds | None = None
    ) -> Event[Any] | None:
        """Wait for an event, given by class or name, that arrives or has arrived since the run began; None at the timeout.

        `match`: a path, such as `data.order_id`, whose value must be the same as in the event that triggered the run.
        `if_`: a CEL expression over `event`, that one, and `async`, the one that arrives.
        """
        step = f"step.wait_for_event({id!r})"
        kind, name = event_of(step, event, match, if_)
        raw = await self._ledger.event(id, name, match, if_, seconds_of(step, timeout))
        return None if raw is None else _event(kind, raw)

    @_noted
    async def wait_for_signal(self, id: str, signal: str, *, timeout: Seconds | None = None) -> Any:
        """Wait for `POST /api/v1/signals/{signal}`; returns its data as plain JSON values, or None at the timeout."""
        step = f"step.wait_for_signal({id!r})"
        check_signal(step, signal)
        raw = await self._ledger.signal(id, signal, seconds_of(step, timeout))
        return None if raw is None else codec.loads(raw)

    @overload
    async def invoke(self, id: str, function: Invocable[R], data: Any = None, *, timeout: Seconds | None = None) -> R: ...

    @overload
    async def invoke(self, id: str, function: str, data: Any = None, *, timeout: Seconds | None = None) -> Any: ...

    @_noted
    async def invoke(self, id: str, function: Invocable[Any] | str, data: Any = None, *, timeout: Seconds | None = None) -> Any:
        """Start a run of another function, given as declared or by id, with `data` as its event's; returns what it returns.

        Raises StepError when that run fails or is cancelled, or has not ended at the timeout.
        """
        step = f"step.invoke({id!r})"
        named = invoked_id(step, function)
        raw = await self._ledger.invoke(id, named, codec.dumps(data), seconds_of(step, timeout))
        return _typed(Any if isinstance(function, str) else returned(function.handler), raw, id)

    @_noted
    async def send_event(self, id: str, events: NewEvent | Sequence[NewEvent]) -> list[str]:
        """Send events, made by `UserCreated.new(…)` or `new_event(…)`, once; returns their ids."""
        given = events_of(f"step.send_event({id!r})", events)
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
