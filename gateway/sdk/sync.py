"""`ctx.step` of a plain function, which runs in a thread: the same steps, called without `await`."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextvars import copy_context
from datetime import datetime, timedelta
from typing import Any, ParamSpec, Protocol, TypeVar, cast, overload

from gateway.core.steps import NewEvent
from gateway.errors import DeclarationError
from gateway.sdk.event import Event
from gateway.sdk.step import SIDE_BY_SIDE, Invocable, Seconds, Steps

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
V = TypeVar("V", bound=Event[Any])


class Bridge(Protocol):
    """From a function's thread to the loop on which its steps are."""

    def wait(self, step: Coroutine[Any, Any, R]) -> R:
        """The result of a step. Raises Suspend where the function is to go on in a later attempt."""
        ...

    def threads(self, more: int) -> None:
        """So many more threads of this function run from now on."""
        ...


class Suspend(BaseException):
    """The function goes on in a later attempt. Not an Exception, so that `except Exception` does not stop it."""


class SyncSteps:
    """The steps of a run of a plain function; each is described with `Steps`."""

    def __init__(self, steps: Steps, bridge: Bridge) -> None:
        self._steps = steps
        self._bridge = bridge

    def with_options(self, *, retries: int | None = None, timeout: Seconds | None = None) -> SyncSteps:
        """These steps with other options for `run` and `map`."""
        return SyncSteps(self._steps.with_options(retries=retries, timeout=timeout), self._bridge)

    @overload
    def run(self, id: str, fn: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    @overload
    def run(self, id: str, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    def run(self, id: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call `fn` and remember what it returns."""
        return self._bridge.wait(self._steps.run(id, fn, *args, **kwargs))

    def map(self, id: str, fn: Callable[[T], Awaitable[R]] | Callable[[T], R], items: Iterable[T], *, limit: int = SIDE_BY_SIDE) -> list[R]:
        """`run` for each item, at most `limit` at a time."""
        return self._bridge.wait(self._steps.map(id, fn, items, limit=limit))

    def sleep(
        self,
        id: str,
        duration: timedelta | None = None,
        *,
        days: float | None = None,
        hours: float | None = None,
        minutes: float | None = None,
        seconds: float | None = None,
    ) -> None:
        """Go on after a time."""
        self._bridge.wait(self._steps.sleep(id, duration, days=days, hours=hours, minutes=minutes, seconds=seconds))

    def sleep_until(self, id: str, when: datetime) -> None:
        """Go on at a time."""
        self._bridge.wait(self._steps.sleep_until(id, when))

    @overload
    def wait_for_event(
        self, id: str, event: type[V], *, match: str | None = None, if_: str | None = None, timeout: Seconds | None = None
    ) -> V | None: ...

    @overload
    def wait_for_event(
        self, id: str, event: str, *, match: str | None = None, if_: str | None = None, timeout: Seconds | None = None
    ) -> Event[Any] | None: ...

    def wait_for_event(
        self, id: str, event: Any, *, match: str | None = None, if_: str | None = None, timeout: Seconds | None = None
    ) -> Event[Any] | None:
        """Wait for an event; None at the timeout."""
        waiting = self._steps.wait_for_event(id, event, match=match, if_=if_, timeout=timeout)
        return self._bridge.wait(cast(Coroutine[Any, Any, Event[Any] | None], waiting))

    def wait_for_signal(self, id: str, signal: str, *, timeout: Seconds | None = None) -> Any:
        """Wait for a signal; its data, or None at the timeout."""
        return self._bridge.wait(self._steps.wait_for_signal(id, signal, timeout=timeout))

    @overload
    def invoke(self, id: str, function: Invocable[R], data: Any = None, *, timeout: Seconds | None = None) -> R: ...

    @overload
    def invoke(self, id: str, function: str, data: Any = None, *, timeout: Seconds | None = None) -> Any: ...

    def invoke(self, id: str, function: Any, data: Any = None, *, timeout: Seconds | None = None) -> Any:
        """Start a run of another function and wait for what it returns."""
        return self._bridge.wait(self._steps.invoke(id, function, data, timeout=timeout))

    def send_event(self, id: str, events: NewEvent | Sequence[NewEvent]) -> list[str]:
        """Send events, once; returns their ids."""
        return self._bridge.wait(self._steps.send_event(id, events))

    def parallel(self, *branches: Callable[[], T]) -> list[T]:
        """Call several functions at the same time, each in a thread and with steps of its own; their results, in order.

        The first error is raised once all have ended.
        """
        for call in branches:
            if not callable(call) or inspect.iscoroutinefunction(call):
                raise DeclarationError(
                    f"step.parallel takes plain functions without arguments, such as lambda: ctx.step.run(…); not {call!r}"
                )
        results: dict[int, T] = {}
        errors: dict[int, BaseException] = {}

        def branch(n: int, call: Callable[[], T]) -> None:
            try:
                results[n] = call()
            except BaseException as error:
                errors[n] = error
            finally:
                self._bridge.threads(-1)

        contexts = [copy_context() for _ in branches]
        threads = [
            threading.Thread(target=context.run, args=(branch, n, call), daemon=True)
            for n, (context, call) in enumerate(zip(contexts, branches, strict=True))
        ]
        self._bridge.threads(len(threads) - 1)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._bridge.threads(1)
        suspended = [error for error in errors.values() if isinstance(error, Suspend)]
        for error in [*suspended, *(errors[n] for n in sorted(errors))]:
            raise error
        return [results[n] for n in range(len(branches))]
