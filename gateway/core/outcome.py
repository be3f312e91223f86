"""What came of one attempt, and what becomes of the run: plain values between invoker, engine and store."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.clock import Micros


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as it is kept: its class, its message, where it was raised."""

    type: str
    message: str
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Completed:
    """The function returned; `output` is its result as JSON. `waits`: it may have left waits behind."""

    output: bytes
    waits: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """The function raised. `retry_at` is set when it asked for a time of its own. `waits`: it may have left waits behind."""

    error: Failure
    retriable: bool = True
    retry_at: Micros | None = None
    waits: bool = True


@dataclass(frozen=True, slots=True)
class HandedBack:
    """The worker had to stop before the function ended; the attempt does not count."""


@dataclass(frozen=True, slots=True)
class Suspended:
    """The function goes on later: at `due_at`, or once one of the steps named in `pending` has what it waits for."""

    due_at: Micros
    reason: str
    pending: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The run is over before its function is."""

    error: Failure


Outcome = Completed | Failed | HandedBack | Suspended | Cancelled
