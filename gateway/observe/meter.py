"""Counts facts, and writes the counts down now and then: what `/metrics` and statistics are made of."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.clock import Clock
from gateway.errors import Unavailable
from gateway.store.journal import Journal
from gateway.store.stats import Key, NoteStats, Tally

FLUSH_SECONDS = 5.0

OUTCOMES = {
    "succeed": "succeeded", "fail": "failed", "retry": "retried", "hand_back": "handed_back", "park": "parked", "cancel": "cancelled",
}  # fmt: skip


class Meter:
    """A telemetry listener. Kinds: `webhook` and `refusal` by source, `attempt` and `wait` by function, `retention` by what."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tallies: dict[Key, Tally] = {}

    def __call__(self, name: str, facts: dict[str, Any]) -> None:
        if name == "webhook.accepted":
            self._add("webhook", facts["source"], "accepted", facts["us"])
        elif name == "webhook.duplicate":
            self._add("webhook", facts["source"], "duplicate", facts["us"])
        elif name in ("webhook.refused", "webhook.astray"):
            self._add("refusal", facts["source"], facts["reason"], 0)
        elif name == "webhook.unavailable":
            self._add("webhook", facts["source"], "unavailable", 0)
        elif name == "run.started":
            self._add("wait", facts["function"], "started", facts["wait_us"])
        elif name == "run.ended":
            self._add("attempt", facts["function"], OUTCOMES[facts["move"]], facts["duration_us"])
        elif name == "retention.swept":
            for what, count in facts["removed"].items():
                self._tally("retention", what, "removed").count += count

    def _add(self, kind: str, subject: str, outcome: str, us: int) -> None:
        self._tally(kind, subject, outcome).add(us)

    def _tally(self, kind: str, subject: str, outcome: str) -> Tally:
        key = (kind, subject, outcome)
        tally = self._tallies.get(key)
        if tally is None:
            tally = self._tallies[key] = Tally()
        return tally

    async def run(self, journal: Journal) -> None:
        """Write down every FLUSH_SECONDS, and once more when cancelled; what cannot be written is kept for the next time."""
        try:
            while True:
                await asyncio.sleep(FLUSH_SECONDS)
                await self.flush(journal)
        finally:
            await self.flush(journal)

    async def flush(self, journal: Journal) -> None:
        """Write down what was counted since the last time."""
        if not self._tallies:
            return
        taken, self._tallies = self._tallies, {}
        try:
            await journal.commit(NoteStats(self._clock(), taken))
        except Unavailable:
            for key, tally in taken.items():
                self._tallies.setdefault(key, Tally()).merge(tally)
