"""The kill loop: load over HTTP, `kill -9` at random, and at the end a tally that must come out even.

Run by scripts/crash for as long as asked, and for a few seconds by the tests.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from gateway.store.database import Database, open_database
from tests.processes import Site, post, until

SENDERS = 8
SHOWN_SECONDS = 5.0

# What would be left of a bundle that had been removed in parts.
TORN = (
    "deliveries where event_id not in (select id from events)",
    "runs where event_id not in (select id from events)",
    "attempts where run_id not in (select id from runs)",
    "requests where status = 'accepted' and event_id not in (select id from events)",
    "events where request_id not in (select id from requests)",
)


@dataclass
class Tally:
    """What was sent, what was killed, and what the database says in the end."""

    seconds: float = 0
    sent: int = 0
    acknowledged: dict[str, str] = field(default_factory=dict[str, str])
    unanswered: int = 0
    kills: Counter[str] = field(default_factory=Counter[str])
    conflicting_ids: int = 0
    lost: int = 0
    wrong_deliveries: int = 0
    not_final: int = 0
    torn: int = 0
    outcomes: Counter[str] = field(default_factory=Counter[str])
    attempts: Counter[int] = field(default_factory=Counter[int])

    @property
    def good(self) -> bool:
        """Whether every promise held."""
        return not (self.conflicting_ids or self.lost or self.wrong_deliveries or self.not_final or self.torn)


def crash_loop(site: Site, seconds: float, seed: int, longest_life: float = 0.5) -> Tally:
    """Start `serve` on a site, send and kill for `seconds`, wait for everything to end, and count."""
    tally, chance = Tally(seconds=seconds), random.Random(seed)
    site.start("serve")
    site.wait_ready()
    stopping = threading.Event()
    lock = threading.Lock()
    senders = [threading.Thread(target=_send, args=(site, n, tally, lock, stopping)) for n in range(SENDERS)]
    shown = threading.Thread(target=_show_size, args=(site, tally, stopping))
    for thread in [*senders, shown] if keeps(site) else senders:
        thread.start()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if chance.random() < 0.75:  # mostly let it work again first; else it dies while it starts
            before = len(tally.acknowledged)
            until(lambda before=before: len(tally.acknowledged) > before, 30)
        time.sleep(chance.uniform(0, longest_life))  # the moment of death is the random variable of this test
        children = [*site.children(), *((pid, "writer") for pid in site.writers())]
        if children:
            pid, name = chance.choice(children)
            try:
                os.kill(pid, signal.SIGKILL)
                tally.kills[name] += 1
            except ProcessLookupError:
                continue
    stopping.set()
    for sender in senders:
        sender.join()
    if keeps(site):
        shown.join()
    site.wait_ready()
    _wait_for_the_end(site)
    site.stop()
    _count(site, tally)
    return tally


def _send(site: Site, number: int, tally: Tally, lock: threading.Lock, stopping: threading.Event) -> None:
    """Send as a third party does: the same delivery again until it is acknowledged, now and then once more."""
    chance = random.Random(number)
    client, n = httpx.Client(), 0
    while not stopping.is_set():
        n += 1
        key = f"evt_{number}_{n}"
        again = chance.random() < 0.1
        for _ in range(200):
            try:
                response = post(site.url(), key, client)
            except httpx.HTTPError:
                client.close()
                client = httpx.Client()
                with lock:
                    tally.unanswered += 1
                time.sleep(0.05)
                continue
            with lock:
                tally.sent += 1
                if response.status_code == 200:
                    first = tally.acknowledged.setdefault(key, response.json()["id"])
                    tally.conflicting_ids += first != response.json()["id"]
            if response.status_code == 200 and not again:
                break
            again = False
            if stopping.is_set():
                break
    client.close()


def _wait_for_the_end(site: Site) -> None:
    database = open_database(_url(site))
    until(lambda: database.read("select count(*) as n from queue")[0]["n"] == 0, 90)
    database.close()


def _count(site: Site, tally: Tally) -> None:
    database = open_database(_url(site))
    events = {row["id"] for row in database.read("select id from events")}
    # What retention has removed was there once: its key tells.
    keys = {row["event_id"] for row in database.read("select event_id from idempotency_keys")}
    tally.lost = len(set(tally.acknowledged.values()) - (keys if keeps(site) else events))
    found: dict[str, Counter[str]] = {}
    for row in database.read("select event_id, function_id, run_id from deliveries"):
        found.setdefault(row["event_id"], Counter())[row["function_id"]] += row["run_id"] is not None
    tally.wrong_deliveries = sum(found.get(id_, Counter()) != Counter(quick=1, slow=1) for id_ in events)
    for row in database.read("select outcome, attempts, count(*) as n from runs group by outcome, attempts"):
        if row["outcome"] is None:
            tally.not_final += row["n"]
        else:
            tally.outcomes[row["outcome"]] += row["n"]
            tally.attempts[row["attempts"]] += row["n"]
    tally.torn = sum(database.read(f"select count(*) as n from {part}")[0]["n"] for part in TORN)
    database.close()


def keep(site: Site, seconds: float) -> None:
    """Have a site remove what is older than so many seconds."""
    days = str(seconds / 86_400)
    names = ("RETENTION_DAYS", "RETENTION_FAILED_DAYS", "RETENTION_REQUESTS_DAYS")
    site.settings |= {f"TIDEGATE_{name}": days for name in names} | {"TIDEGATE_IDEMPOTENCY_DAYS": "0"}


def keeps(site: Site) -> bool:
    """Whether a site removes what is old."""
    return "TIDEGATE_RETENTION_DAYS" in site.settings


def _show_size(site: Site, tally: Tally, stopped: threading.Event) -> None:
    """A line every few seconds: what was acknowledged, what is stored, and how much disk that takes."""
    started, database = time.monotonic(), open_database(_url(site))
    print(f"{'seconds':>8} {'acknowledged':>13} {'stored events':>14} {'database MB':>12} {'of it free':>11} {'log MB':>7}")
    while not stopped.wait(SHOWN_SECONDS):
        events = database.read("select count(*) as n from events")[0]["n"]
        size, free, log = _sizes(database)
        seconds = time.monotonic() - started
        print(f"{seconds:>8.0f} {len(tally.acknowledged):>13,} {events:>14,} {size:>12.1f} {free:>11.1f} {log:>7.1f}", flush=True)
    database.close()


def _sizes(database: Database) -> tuple[float, float, float]:
    """Megabytes of the database, of what in it is free for use again, and of SQLite's log."""
    if database.dialect == "postgresql":
        [row] = database.read("select pg_database_size(current_database()) as size")
        return row["size"] / 1e6, 0, 0
    [row] = database.read("select page_count * page_size as size, freelist_count * page_size as free"
                          " from pragma_page_count(), pragma_page_size(), pragma_freelist_count()")  # fmt: skip
    log = Path(database.url.removeprefix("sqlite:///") + "-wal")
    return row["size"] / 1e6, row["free"] / 1e6, log.stat().st_size / 1e6 if log.exists() else 0


def _url(site: Site) -> str:
    return site.database_url or f"sqlite:///{site.folder / 'data' / 'tidegate.db'}"


def main() -> int:
    """`scripts/crash [SECONDS] [DATABASE_URL]`: print the tally; exit code 1 when a promise was broken."""
    parser = argparse.ArgumentParser("scripts/crash", description="Kill gateway and worker at random under load, then count.")
    parser.add_argument("seconds", type=float, nargs="?", default=60.0, help="how long to kill (60)")
    parser.add_argument("database_url", nargs="?", default="", help="postgresql://… of an empty database (SQLite)")
    parser.add_argument("--keep", type=float, metavar="SECONDS", help="remove what is older, show the size, and kill every 5 s or so")
    given = parser.parse_args()
    seed = int(os.environ.get("CRASH_SEED", str(random.randrange(10**6))))
    with tempfile.TemporaryDirectory() as folder:
        made = Site(Path(folder), database_url=given.database_url)
        try:
            if given.keep:
                keep(made, given.keep)
            made.run("migrate")
            tally = crash_loop(made, given.seconds, seed, *([10.0] if given.keep else []))
        finally:
            made.stop()
    print(f"seed {seed}, {given.seconds:g} s under load, killed: {dict(tally.kills)}")
    print(f"acknowledged {len(tally.acknowledged)} events in {tally.sent} answers, {tally.unanswered} requests got none")
    print(f"runs ended: {dict(tally.outcomes)}; by attempts: {dict(sorted(tally.attempts.items()))}")
    print(f"lost {tally.lost}, two ids for one key {tally.conflicting_ids}, wrong deliveries {tally.wrong_deliveries}, "
          f"never ended {tally.not_final}, removed in parts {tally.torn}")  # fmt: skip
    print("every promise held" if tally.good else "A PROMISE WAS BROKEN")
    return 0 if tally.good else 1


if __name__ == "__main__":
    sys.exit(main())
