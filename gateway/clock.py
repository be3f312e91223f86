"""The only place that asks what time it is. Times inside Tidegate are integer microseconds since 1970-01-01 UTC."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Micros = int
Clock = Callable[[], Micros]

SECOND: Micros = 1_000_000
DAY: Micros = 86_400 * SECOND
NEVER: Micros = 253_402_300_799_000_000  # 9999-12-31, later than anything that is due

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def system_clock() -> Micros:
    """The wall clock in microseconds since the epoch, UTC."""
    return time.time_ns() // 1000


def to_datetime(micros: Micros) -> datetime:
    """An aware UTC datetime for microseconds since the epoch."""
    return _EPOCH + timedelta(microseconds=micros)


def from_datetime(when: datetime) -> Micros:
    """Microseconds since the epoch for an aware datetime."""
    return (when - _EPOCH) // timedelta(microseconds=1)


def to_rfc3339(micros: Micros) -> str:
    """`2026-11-24T08:00:00.123Z`: UTC with milliseconds."""
    return to_datetime(micros).isoformat(timespec="milliseconds").replace("+00:00", "Z")
