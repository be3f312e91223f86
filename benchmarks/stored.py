"""What a webhook costs with many events stored, beside an empty database: scripts/bench stored [EVENTS]."""

from __future__ import annotations

import time

from benchmarks.load import drive, requests
from benchmarks.stage import database, databases, show, site, start_all, stop_worker
from gateway.ids import new_id
from gateway.store.database import Database
from gateway.store.inbox import Accept, EventRecord, NewDelivery
from gateway.store.journal import Journal
from tests.processes import Site, until

PATH = "/webhooks/stripe"
GROUP = 256


def main(count: int = 3_000_000) -> None:
    """Both databases."""
    with databases() as both:
        for name, url in both:
            with site(url) as made:
                start_all(made)
                stop_worker(made)
                drive(made.port, requests(4000, PATH, "warm"))
                before = _rate(made, "before")
                with database(made) as opened:
                    _fill(opened, count)
                after = _rate(made, "after")
                show(f"{name}: webhooks accepted, none stored", before, "/s")
                show(f"{name}: webhooks accepted, {count:,} stored", after, "/s", f"{before / after:.2f} of the cost")


def _rate(made: Site, name: str) -> float:
    return max(drive(made.port, requests(10_000, PATH, f"{name}{n}")).per_second for n in range(3))


def _fill(opened: Database, count: int) -> None:
    """Events with random keys, each with the final run of one function: what years of use leave behind."""
    journal, at = Journal(opened), time.time_ns() // 1000
    for start in range(0, count, GROUP * 64):
        made = [_accept(n, at) for n in range(start, min(start + GROUP * 64, count))]
        futures = [journal.submit(accept) for accept in made[: GROUP * 8]]
        for n, accept in enumerate(made[GROUP * 8 :]):
            futures[n].result()
            futures.append(journal.submit(accept))
        futures[-1].result()
        with opened.transaction() as tx:
            tx.rows("delete from queue")
            tx.rows("update runs set outcome = 'succeeded', finished_at = created_at where outcome is null")
    until(lambda: journal.queued == 0)
    journal.close()


def _accept(n: int, at: int) -> Accept:
    event = EventRecord(new_id("evt"), "stripe/charge.succeeded", "stripe", f"stored {n}", at, at, b"{}", data=b"{}")
    return Accept(event, (NewDelivery("empty", 5, new_id("run")),))
