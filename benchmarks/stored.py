"""What a webhook costs with many events stored, beside an empty database: scripts/bench stored [EVENTS]."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future

from benchmarks.load import drive, requests
from benchmarks.stage import database, databases, show, site, start_all, stop_worker
from gateway.ids import new_id
from gateway.store.database import Database, Transaction
from gateway.store.inbox import Accept, Accepted, EventRecord, NewDelivery
from gateway.store.journal import Command
from gateway.store.threaded import ThreadJournal
from tests.processes import Site

PATH = "/webhooks/stripe"
GROUPED = 2000
ENDED = 50_000


def main(count: int = 3_000_000) -> None:
    """Both databases."""
    with databases() as both:
        for name, url in both:
            with site(url) as made:
                start_all(made)
                stop_worker(made)
                drive(made.port, requests(4000, PATH, "warm"))
                before = _rates(made, "before")
                with database(made) as opened:
                    _fill(opened, count)
                after = _rates(made, "after")
                for ids, empty, full in zip(("ids that count up", "ids at random"), before, after, strict=True):
                    show(f"{name}: webhooks accepted, {ids}, none stored", empty, "/s")
                    show(f"{name}: webhooks accepted, {ids}, {count:,} stored", full, "/s", f"{empty / full:.2f} of the cost")


def _rates(made: Site, name: str) -> list[float]:
    """With ids that count up, and with ids at random."""
    return [
        max(drive(made.port, requests(10_000, PATH, f"{name}{n}", scattered=scattered)).per_second for n in range(3))
        for scattered in (False, True)
    ]


def _fill(opened: Database, count: int) -> None:
    """Events with random keys, each with the final run of one function: what years of use leave behind."""
    journal, at, waiting = ThreadJournal(opened), time.time_ns() // 1000, deque[Future[Accepted]]()
    for n in range(count):
        waiting.append(journal.submit(_accept(n, at)))
        if len(waiting) > GROUPED:
            waiting.popleft().result()
        if n % ENDED == ENDED - 1 or n == count - 1:
            while waiting:
                waiting.popleft().result()
            journal.submit(_EndAll()).result()
    journal.close()


class _EndAll(Command[None], frozen=True):
    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[_EndAll]) -> list[None]:
        tx.rows("update runs set outcome = 'succeeded', finished_at = created_at where id in (select run_id from queue)")
        tx.rows("delete from queue")
        return [None] * len(commands)


def _accept(n: int, at: int) -> Accept:
    event = EventRecord(new_id("evt"), "stripe/charge.succeeded", "stripe", secrets.token_hex(12), at, at, b"{}", data=b"{}")
    return Accept(event, (NewDelivery("empty", 5, new_id("run")),))
