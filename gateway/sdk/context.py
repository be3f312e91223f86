"""What a function is called with."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic

from typing_extensions import TypeVar

from gateway.core.outcome import Failure
from gateway.sdk.event import Event
from gateway.sdk.step import Steps
from gateway.sdk.sync import SyncSteps

E = TypeVar("E", bound=Event[Any], default=Event[Any])

Progress = Callable[[int, int | None, str], None]


@dataclass(frozen=True, kw_only=True)
class _Called(Generic[E]):
    """`attempt` counts from 1; what it counts are attempts of the run, and not of its steps. `logger` carries run, function,
    attempt and step, and what it is told is kept with the run. `failure` is set for an `on_failure` handler: the error of the run
    that failed, whose id is `failed_run_id`."""

    event: E
    run_id: str
    function_id: str
    attempt: int
    traceparent: str | None = None
    logger: logging.LoggerAdapter[logging.Logger] = field(repr=False)
    failure: Failure | None = None
    failed_run_id: str | None = None
    _progress: Progress = field(repr=False)

    @property
    def events(self) -> tuple[E, ...]:
        """The events of the run: today always the one."""
        return (self.event,)

    def progress(self, done: int, total: int | None = None, message: str = "") -> None:
        """Show how far the run is. Call it as often as you like: it is written down at most twice a second."""
        self._progress(done, total, message)


@dataclass(frozen=True, kw_only=True)
class Context(_Called[E]):
    """What an `async` function is called with."""

    step: Steps = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class SyncContext(_Called[E]):
    """What a plain function is called with, in a thread of its own."""

    step: SyncSteps = field(repr=False)
