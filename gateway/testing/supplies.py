"""What a test lets arrive while a function runs: events and signals, at a time or as soon as a step waits for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar, cast

from gateway.clock import SECOND, Micros
from gateway.core.steps import NewEvent
from gateway.errors import DeclarationError

T = TypeVar("T")


@dataclass(frozen=True)
class After(Generic[T]):
    """Something that arrives at a time, counted from the run's start."""

    what: T
    delay: timedelta


def after(
    what: T, duration: timedelta = timedelta(0), *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0
) -> After[T]:
    """An event, or a signal's data, that arrives so long after the run's start, whether a step waits for it or not."""
    delay = duration + timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    if delay < timedelta(0):
        raise DeclarationError(f"after() takes a time after the run's start, not {delay!r}")
    return After(what, delay)


@dataclass
class Supply:
    """An event or a signal that a test supplies. `at`: when it arrives; None: once a step waits for it."""

    name: str
    event: NewEvent | None
    data: Any
    at: Micros | None
    used: bool = False

    @property
    def shown(self) -> str:
        """What it is, for messages."""
        return f"{'event' if self.event is not None else 'signal'} {self.name!r}"


def supplies(
    events: Sequence[NewEvent | After[NewEvent]], signals: Mapping[str, Any | After[Any]], start: Micros
) -> tuple[list[Supply], list[Supply]]:
    """Those that come once they are waited for, and those that come by themselves, soonest first."""
    made = [_supply(event, start) for event in events]
    for name, given in signals.items():
        data, at = _timed(given, start)
        made.append(Supply(name, None, data, at))
    timed = [supply for supply in made if supply.at is not None]
    return [supply for supply in made if supply.at is None], sorted(timed, key=lambda supply: supply.at or 0)


def _supply(given: Any, start: Micros) -> Supply:
    event, at = _timed(given, start)
    if not isinstance(event, NewEvent):
        raise DeclarationError(f"`events` takes events, made by `OrderShipped.new(…)` or `new_event(name, data)`; not {event!r}")
    return Supply(event.name, event, None, at)


def _timed(given: Any, start: Micros) -> tuple[Any, Micros | None]:
    """What is given, and when it comes."""
    if not isinstance(given, After):
        return given, None
    later = cast(After[Any], given)
    return later.what, start + int(later.delay.total_seconds() * SECOND)
