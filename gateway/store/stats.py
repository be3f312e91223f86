"""Counts and durations of webhooks and runs, by the minute and in all; written down together every few seconds."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate

import msgspec

from gateway.clock import Micros
from gateway.store.database import Transaction
from gateway.store.journal import Command

BOUNDS_US = (5_000, 25_000, 100_000, 500_000, 1_000_000, 5_000_000, 30_000_000, 120_000_000)
MINUTE_US = 60_000_000
TOTAL = 0
CHUNK = 200

_COUNTS = ("count", "total_us", *(f"b{n}" for n in range(len(BOUNDS_US))))
_COLUMNS = ("minute", "kind", "subject", "outcome", *_COUNTS)

Key = tuple[str, str, str]


class Tally(msgspec.Struct):
    """How often something happened, and how long it took in all. `buckets`: how often it took at most each of BOUNDS_US and more
    than the one before, and last how often it took longer than all."""

    count: int = 0
    total_us: int = 0
    buckets: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BOUNDS_US) + 1))

    def add(self, us: Micros) -> None:
        """Count one more that took so long."""
        self.count += 1
        self.total_us += us
        self.buckets[bisect_left(BOUNDS_US, us)] += 1

    def merge(self, other: Tally) -> None:
        """Count what another tally has counted."""
        self.count += other.count
        self.total_us += other.total_us
        self.buckets = [mine + its for mine, its in zip(self.buckets, other.buckets, strict=True)]

    @property
    def within(self) -> list[int]:
        """How often it took at most each of BOUNDS_US."""
        return list(accumulate(self.buckets[:-1]))


class NoteStats(Command[None], frozen=True):
    """Add tallies, by (kind, subject, outcome), to a minute and to the total."""

    now: Micros
    tallies: Mapping[Key, Tally]

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[NoteStats]) -> list[None]:
        for command in commands:
            _note(tx, command)
        return [None] * len(commands)


def _note(tx: Transaction, note: NoteStats) -> None:
    changes = ", ".join(f"{name} = stats.{name} + excluded.{name}" for name in _COUNTS)
    place = f"({', '.join('?' * len(_COLUMNS))})"
    rows = [
        (minute, *key, tally.count, tally.total_us, *tally.within)
        for minute in (TOTAL, note.now // MINUTE_US)
        # In one order everywhere: two processes that add to the same rows must not wait for each other in a circle.
        for key, tally in sorted(note.tallies.items(), key=lambda item: item[0])
    ]
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        tx.rows(
            f"insert into stats ({', '.join(_COLUMNS)}) values {', '.join([place] * len(chunk))}"
            f" on conflict (minute, kind, subject, outcome) do update set {changes}",
            [value for row in chunk for value in row],
        )
