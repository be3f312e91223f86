"""Runs of an empty function a second by one worker, and how long an accepted event waits for its function to start."""

from __future__ import annotations

import time

from benchmarks.load import drive, requests
from benchmarks.stage import database, databases, queued, show, site, start_all, stop_worker
from gateway.store.database import Database
from tests.processes import Site, until

PATH = "/webhooks/stripe"


def main(count: int = 30_000) -> None:
    """Both databases."""
    with databases() as both:
        for name, url in both:
            with site(url) as made:
                start_all(made)
                with database(made) as opened:
                    drive(made.port, requests(1000, PATH, "warm"))
                    _latency(name, "low load", made, opened, 500, 50.0)
                    _latency(name, "saturated", made, opened, count // 2, None)
                    stop_worker(made)
                    drive(made.port, requests(count, PATH, "queue"))
                    _throughput(name, made, opened)


def _latency(name: str, load: str, made: Site, opened: Database, count: int, rate: float | None) -> None:
    until(lambda: queued(opened) == 0, 120)
    since = time.time_ns() // 1000
    drive(made.port, requests(count, PATH, f"{name}{load}"), rate)
    until(lambda: queued(opened) == 0, 120)
    rows = opened.read("select started_at - created_at as us from runs where created_at > ? and started_at is not null", [since])
    waits = sorted(row["us"] / 1000 for row in rows)
    show(f"{name}: accepted to started, {load}, median", waits[len(waits) // 2], "ms", f"p99 {waits[len(waits) * 99 // 100]:.1f} ms")


def _throughput(name: str, made: Site, opened: Database) -> None:
    total = queued(opened)
    made.start("worker")
    until(lambda: queued(opened) < total)
    first, left = time.perf_counter(), queued(opened)
    until(lambda: queued(opened) == 0, 120)
    show(f"{name}: runs of an empty function, one worker", left / (time.perf_counter() - first), "/s", f"{total} in all")
