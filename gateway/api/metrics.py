"""`/metrics` for Prometheus: what every process has counted, as the database has it, and how this one is right now.

Counts come from the database, where gateways and workers write them down every few seconds, so that any one gateway answers
for all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from litestar import Response, get
from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from gateway.api import describe
from gateway.api.deps import Deps, require_key
from gateway.errors import Unavailable
from gateway.store.reads import Reads, Record
from gateway.store.stats import BOUNDS_US

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECOND_US = 1_000_000

COUNTERS = {
    "webhook": ("tidegate_webhooks", "Webhooks that passed verification, by what became of them.", ("source", "outcome")),
    "refusal": ("tidegate_webhook_refusals", "Webhooks that failed verification, by why.", ("source", "reason")),
    "attempt": ("tidegate_attempts", "Ended attempts at runs.", ("function", "outcome")),
    "retention": ("tidegate_retention_rows", "What retention has done with what was old.", ("what", "outcome")),
}
HISTOGRAMS = {
    "webhook": ("tidegate_webhook_duration_seconds", "From the whole request to its answer.", "source"),
    "attempt": ("tidegate_attempt_duration_seconds", "How long attempts took.", "function"),
    "wait": ("tidegate_run_wait_seconds", "From when a run was due to its start.", "function"),
}


@get("/metrics", guards=[require_key], tags=["health"], responses=describe.raw("text/plain", "Prometheus' text format."))
async def get_metrics(deps: Deps) -> Response[bytes]:
    """Counts, durations and backlog in Prometheus' text format."""
    found = await asyncio.to_thread(_stored, deps.reads, deps.clock())
    families = [*_own(deps, stored=bool(found)), *found]
    return Response(generate_latest(_Families(families)), media_type=CONTENT_TYPE)  # pyright: ignore[reportArgumentType]


class _Families:
    """What prometheus_client takes for a registry."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _own(deps: Deps, *, stored: bool) -> Iterator[Metric]:
    up = stored and deps.journal.health.trouble is None
    yield GaugeMetricFamily("tidegate_store_up", "Whether the database takes what arrives.", value=int(up))
    yield GaugeMetricFamily("tidegate_journal_queued", "Commands of this process that wait to be written.", value=deps.journal.queued)


def _stored(reads: Reads, now: int) -> list[Metric]:
    """What the database says; nothing while it is away."""
    try:
        totals = reads.totals()
        return [*_totals(totals), *_backlog(reads.backlog_by_function(now), now), *_now(reads, now)]
    except Unavailable:
        return []


def _totals(totals: Sequence[Record]) -> Iterator[Metric]:
    for kind, (name, text, labels) in COUNTERS.items():
        counter = CounterMetricFamily(name, text, labels=labels)
        for row in totals:
            if row["kind"] == kind:
                counter.add_metric([row["subject"], row["outcome"]], row["count"])
        yield counter
    for kind, (name, text, label) in HISTOGRAMS.items():
        histogram = HistogramMetricFamily(name, text, labels=[label])
        for subject in dict.fromkeys(row["subject"] for row in totals if row["kind"] == kind):
            rows = [row for row in totals if row["kind"] == kind and row["subject"] == subject]
            histogram.add_metric([subject], _buckets(rows), sum(row["total_us"] for row in rows) / SECOND_US)
        yield histogram


def _buckets(rows: Sequence[Record]) -> list[tuple[str, Any]]:
    bounds = [(str(bound / SECOND_US), sum(row[f"b{n}"] for row in rows)) for n, bound in enumerate(BOUNDS_US)]
    return [*bounds, ("+Inf", sum(row["count"] for row in rows))]


def _backlog(rows: Sequence[Record], now: int) -> Iterator[Metric]:
    due = GaugeMetricFamily("tidegate_backlog_due", "Runs that are due and not started, up to 10,000 in all.", labels=["function"])
    oldest = GaugeMetricFamily("tidegate_backlog_oldest_due_seconds", "How long the first of them has been due.", labels=["function"])
    for row in rows:
        due.add_metric([row["function_id"]], row["due"])
        oldest.add_metric([row["function_id"]], max(now - row["oldest_due_at"], 0) / SECOND_US)
    yield from (due, oldest)


def _now(reads: Reads, now: int) -> Iterator[Metric]:
    backlog = reads.backlog(now)
    waiting = GaugeMetricFamily("tidegate_backlog_waiting", "Runs that nobody offers or that are paused, up to 10,000.", labels=["reason"])
    waiting.add_metric(["no_worker_offers_it"], backlog["held"])
    waiting.add_metric(["paused"], backlog["paused"])
    processes = GaugeMetricFamily("tidegate_processes", "Processes whose lease runs.", labels=["kind"])
    alive = [row["kind"] for row in reads.processes(now)]
    for kind in ("gateway", "worker"):
        processes.add_metric([kind], alive.count(kind))
    yield from (waiting, processes)
