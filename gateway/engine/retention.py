"""Removing what is old: one process at a time, in batches so small that nothing else waits for them.

A thread of its own, so that a function that blocks the loop keeps nobody's disk filling up.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import get_args

import msgspec

from gateway.clock import SECOND, Clock
from gateway.errors import Unavailable
from gateway.store.database import Database
from gateway.store.duties import LeaveDuties, TakeDuty
from gateway.store.journal import Command, Journal
from gateway.store.retention import (
    Ages,
    Cutoffs,
    Keys,
    Oldest,
    Removed,
    RemoveEvents,
    RemoveKeys,
    RemoveOldest,
    cutoffs,
    old_events,
    old_keys,
)
from gateway.telemetry import Telemetry

DUTY = "retention"
HELD_SECONDS = 15.0
FIRST_REST_SECONDS = 30.0
LONGEST_REST_SECONDS = 3600.0
LATE = 100  # what is old goes by this part of its age late
MOST = 50
AIM_SECONDS = 0.002
PAUSE_FACTOR = 6.0


class Retention:
    """Sweeps now and then until it is stopped, where no other process does."""

    def __init__(
        self,
        *,
        holder: str,
        database: Database,
        journal: Journal,
        ages: Ages,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._holder = holder
        self._database = database
        self._journal = journal
        self._ages = ages
        self._clock = clock
        self._telemetry = telemetry
        self._rest = min(_rest(age) for age in (*msgspec.structs.astuple(ages), 0))
        self._stopping = threading.Event()
        self._held_until = self._keys_due = self._breathed = self._began = float("-inf")
        self._size = 10
        self._removed: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End behind the batch that is being removed."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        rest = min(self._rest, FIRST_REST_SECONDS)
        while not self._stopping.wait(rest):
            rest = self._rest
            try:
                self.sweep()
            except Unavailable:
                continue

    def sweep(self) -> bool:
        """Remove all that is old; False when another process has the duty, or this one is stopped. Raises Unavailable."""
        started, limits = time.monotonic(), cutoffs(self._ages, self._clock())
        self._began = started
        if not self._take(HELD_SECONDS):
            return False
        self._breathed = started
        try:
            self._remove_all(limits)
        except _Ended:
            return False
        finally:
            removed, self._removed = self._removed, Counter()
            if removed.total():
                self._telemetry.emit("retention.swept", removed=dict(+removed), seconds=round(time.monotonic() - started, 1))
        return self._take(self._rest)  # until then, nobody needs to look again

    def _remove_all(self, limits: Cutoffs) -> None:
        for what in get_args(Oldest):
            while self._remove(what, RemoveOldest(what, limits, self._size)):
                continue
        for page in old_events(self._database, limits):
            while page:
                batch, page = page[: self._size], page[self._size :]
                self._remove("events", RemoveEvents(tuple(batch), limits))
            self._breathe()
        if time.monotonic() >= self._keys_due:
            for table in get_args(Keys):
                self._remove_keys(table, limits)
            self._keys_due = time.monotonic() + self._ages.keys / SECOND / LATE

    def _remove_keys(self, table: Keys, limits: Cutoffs) -> None:
        for keys in old_keys(self._database, limits, table):
            if keys:
                self._remove("keys", RemoveKeys(table, tuple(keys)))
            self._breathe()

    def _remove(self, what: str, command: Command[Removed]) -> int:
        removed = self._journal.submit(command).result()
        self._removed[what] += removed.count
        # By the time it has worked, and not by the time it has waited for its turn: small batches do not make a busy disk faster.
        if removed.seconds > AIM_SECONDS:
            self._size = max(self._size // 2, 1)
        elif removed.seconds < AIM_SECONDS / 2:
            self._size = min(self._size + 5, MOST)
        self._breathe()
        return removed.count

    def _breathe(self) -> None:
        """Pause for longer than was worked since the last time; so the busier the database, the more is left to others. A sweep
        that lasts until the next one should begin is behind what comes in, and pauses less and less."""
        now = time.monotonic()
        worked, late = now - self._breathed, (now - self._began) / self._rest
        if self._stopping.wait(worked * PAUSE_FACTOR / (1 + late)):
            self._journal.submit(LeaveDuties(self._holder)).result()
            raise _Ended
        self._breathed = time.monotonic()
        if self._breathed > self._held_until - HELD_SECONDS / 2 and not self._take(HELD_SECONDS):
            raise _Ended

    def _take(self, seconds: float) -> bool:
        self._held_until = time.monotonic() + seconds
        lease = int(seconds * SECOND)
        return self._journal.submit(TakeDuty(DUTY, self._holder, self._clock(), lease)).result()


class _Ended(Exception):
    """The sweep is not to go on."""


def _rest(age: int) -> float:
    """Seconds between two looks for what is older than `age`."""
    return min(max(age / SECOND / LATE, 1.0), LONGEST_REST_SECONDS) if age else LONGEST_REST_SECONDS
