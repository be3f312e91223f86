"""Durable steps: three-step runs a second by one worker, sleepers that wake at once beside fresh runs, and what a million
parked waits cost a webhook: scripts/bench steps [RUNS]."""

from __future__ import annotations

import os
import statistics
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future

import psycopg

from benchmarks.load import drive, requests
from benchmarks.stage import database, databases, queued, show, site, start_all, stop_worker
from gateway.core.steps import Condition
from gateway.ids import new_id
from gateway.store.database import Database, Transaction
from gateway.store.inbox import Accept, Accepted, EventRecord, NewDelivery
from gateway.store.journal import Command
from gateway.store.threaded import ThreadJournal
from gateway.store.waits import Wait, register
from tests.processes import Site, until

PATH = "/webhooks/stripe"
WAITS = 1_000_000
CHUNK = 5_000
NAME, WHERE = "stripe/charge.succeeded", "data.object.id"
FUNCTIONS = """
from datetime import UTC, datetime
from gateway import Context, function

async def nothing() -> None:
    return None

@function(on="stripe/*")
async def empty(ctx: Context) -> None:
    return None

@function(on="bench/steps")
async def three(ctx: Context) -> None:
    for name in ("a", "b", "c"):
        await ctx.step.run(name, nothing)

@function(on="bench/sleep")
async def sleeper(ctx: Context) -> None:
    await ctx.step.sleep_until("night", datetime.fromtimestamp(ctx.event.data, UTC))
"""


def main(count: int = 20_000) -> None:
    """Both databases."""
    with databases() as both:
        for name, url in both:
            with site(url, FUNCTIONS) as made:
                start_all(made)
                with database(made) as opened:
                    stop_worker(made)
                    fresh = _emptied(made, opened, "empty", b"{}", count)
                    steps = _emptied(made, opened, "three", b"{}", count)
                    show(f"{name}: runs of an empty function", fresh, "/s")
                    show(f"{name}: runs of three steps", steps, "/s", f"{3 * steps:,.0f} steps a second")
                    _sleepers(name, made, opened, count, fresh)
                    _waits(name, made, opened)


def _emptied(made: Site, opened: Database, function: str, data: bytes, count: int) -> float:
    """Runs a second of one worker that finds them queued."""
    _queue(opened, function, data, count)
    made.start("worker")
    until(lambda: queued(opened) < count, 60)
    first, left = time.perf_counter(), queued(opened)
    until(lambda: queued(opened) == 0, 600)
    rate = left / (time.perf_counter() - first)
    worker = made.processes.pop()
    worker.terminate()
    worker.wait()
    return rate


def _sleepers(name: str, made: Site, opened: Database, count: int, fresh: float) -> None:
    at = time.time() + 30 + count / 1000
    _queue(opened, "sleeper", str(at).encode(), count)
    made.start("worker")
    parked = "select count(*) as n from queue where reason = 'sleep'"
    until(lambda: opened.read(parked)[0]["n"] == count, 600)
    late = time.time() - at
    if late > 0:
        print(f"{name}: the machine parks too slowly: the last run slept {late:.1f} s after all were to wake")
    until(lambda: queued(opened) == 0, 600)
    seconds = time.time() - max(at, at + late)
    show(f"{name}: {count:,} sleepers that wake at once, all done", seconds, "s", f"{seconds * fresh / count:.1f} times as many fresh runs")
    worker = made.processes.pop()
    worker.terminate()
    worker.wait()


def _waits(name: str, made: Site, opened: Database) -> None:
    drive(made.port, requests(4000, PATH, "warm"))
    _settle(made)
    before = _rate(made, "before")
    journal = ThreadJournal(opened)
    for n in range(0, WAITS, CHUNK):
        journal.submit(_Park(n)).result()
    journal.close()
    _settle(made)
    after = _rate(made, "after")
    show(f"{name}: webhooks accepted, nobody waits", before, "/s")
    show(f"{name}: webhooks accepted, {WAITS:,} wait for such events", after, "/s", f"{after / before:.2f} of the rate")


def _settle(made: Site) -> None:
    """Let PostgreSQL do now what it would do beside the next measurement."""
    if made.database_url:
        with psycopg.connect(made.database_url, autocommit=True) as connection:
            connection.execute("vacuum analyze")
            connection.execute("checkpoint")


def _rate(made: Site, name: str) -> float:
    return statistics.median(drive(made.port, requests(10_000, PATH, f"{name}{n}")).per_second for n in range(5))


class _Park(Command[None], frozen=True):
    """Waits of runs that nobody ever wakes."""

    first: int

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[_Park]) -> list[None]:
        for command in commands:
            ids = range(command.first, command.first + CHUNK)
            waits = [(f"run_{n:012}", "wait", Wait("event", os.urandom(16), 0, None, Condition(NAME, WHERE, b""))) for n in ids]
            register(tx, waits)
        return [None] * len(commands)


def _queue(opened: Database, function: str, data: bytes, count: int) -> None:
    journal, at, waiting = ThreadJournal(opened), time.time_ns() // 1000, deque[Future[Accepted]]()
    for n in range(count):
        event = EventRecord(new_id("evt"), f"bench/{function}", "bench", f"{function} {n}", at, at, b"{}", data=data)
        waiting.append(journal.submit(Accept(event, (NewDelivery(function, 5, new_id("run")),))))
        if len(waiting) > 2000:
            waiting.popleft().result()
    while waiting:
        waiting.popleft().result()
    journal.close()
