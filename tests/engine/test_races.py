"""What happens at the same time: transactions that do not see each other, and several that want to end one thing."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway import Context, function
from gateway.core.outcome import Failure
from gateway.core.steps import Step
from gateway.core.waits import any_event, signal_hash
from gateway.ids import new_id
from gateway.store.admin import CancelRun, RetryRun
from gateway.store.database import open_database
from gateway.store.inbox import Accept, EventRecord, NewDelivery
from gateway.store.runs import Claim, Heartbeat
from gateway.store.steps import Dispatch, GiveUp, Remember, Try
from gateway.store.threaded import ThreadJournal
from gateway.store.waits import Arrival, EndWaits, Horizon, SendSignal, Settle, Wait, WaitEnd, keep_paths
from tests.engine.lab import Lab, in_loop

on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite's transactions never overlap
TABLES = ("runs", "queue", "steps", "step_attempts", "waits", "wait_paths", "arrivals", "endings", "events", "deliveries")


@contextlib.contextmanager
def held_open(store, work):
    """A transaction of another process that has done `work` and is committed when the block ends."""
    done, commit = threading.Event(), threading.Event()
    database = open_database(store.url)

    def run() -> None:
        with database.transaction() as tx:
            work(tx)
            tx.rows("select 1")  # what was sent has been done
            done.set()
            commit.wait(20)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert done.wait(10)
        yield
    finally:
        commit.set()
        thread.join()
        database.close()


def accepting(lab: Lab, name: str, data: bytes):
    event_id = new_id("evt")
    command = Accept(EventRecord(event_id, name, "test", event_id, lab.clock(), lab.clock(), b"{}", data=data), ())
    return lambda tx: Accept.execute(tx, [command])


@on_postgresql
@in_loop
async def test_an_event_whose_transaction_is_open_while_the_wait_is_registered_and_looks_is_not_missed(store):
    go_on = asyncio.Event()

    @function(on="a/b")
    async def f(ctx: Context) -> str:
        await go_on.wait()
        event = await ctx.step.wait_for_event("w", "c/d", match="data.id")
        return event.data["says"]

    lab = Lab(store, f)
    async with lab.working():
        for n in range(2):  # nothing has ever waited by this path; and again, when it is known
            go_on.clear()
            [run_id] = await lab.send("a/b", {"id": n})
            await lab.until(lambda run_id=run_id: store.reads.run(run_id)["status"] == "running")
            with held_open(store, accepting(lab, "c/d", b'{"id": %d, "says": "late"}' % n)):
                go_on.set()
                await lab.parked(run_id, "event")
            assert (await lab.ended(run_id))["output"] == "late"
            await lab.until(lambda: not store.database.read("select 1 from wait_paths where settled = 0"))


@on_postgresql
@in_loop
async def test_a_path_is_not_settled_while_a_transaction_is_open_that_began_later_and_does_not_know_it(store):
    go_on = asyncio.Event()

    @function(on="a/b")
    async def f(ctx: Context) -> str:
        await go_on.wait()
        event = await ctx.step.wait_for_event("w", "c/d", match="data.id")
        return event.data["says"]

    lab = Lab(store, f)
    long_ago = lab.clock() - 1_000_000
    async with lab.working():
        [run_id] = await lab.send("a/b", {"id": 1})
        await lab.until(lambda: store.reads.run(run_id)["status"] == "running")
        with contextlib.ExitStack() as event:
            with held_open(store, lambda tx: keep_paths(tx, {("c/d", "data.id"): long_ago})):
                event.enter_context(held_open(store, accepting(lab, "c/d", b'{"id": 1, "says": "found"}')))
            await lab.until(lambda: store.database.read("select 1 from wait_paths where mark > 0"))
            for _ in range(3):
                await lab.commit(Horizon())
            assert store.database.read("select settled from wait_paths") == [{"settled": 0}]
        go_on.set()
        assert (await lab.ended(run_id))["output"] == "found"


@on_postgresql
@in_loop
async def test_a_run_is_not_parked_for_a_wait_that_another_transaction_is_ending(store):
    go_on = asyncio.Event()

    async def busy() -> None:
        await go_on.wait()

    @function(on="a/b")
    async def f(ctx: Context) -> str:
        said, _ = await asyncio.gather(ctx.step.wait_for_signal("w", "go"), ctx.step.run("busy", busy))
        return said

    lab = Lab(store, f)
    async with lab.working():
        [run_id] = await lab.send("a/b")
        await lab.until(lambda: store.count("waits"))
        with held_open(store, lambda tx: SendSignal.execute(tx, [SendSignal(signal_hash("go"), b'"went"', lab.clock())])):
            go_on.set()
            blocked = "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
            await lab.until(lambda: store.database.read(blocked) or store.reads.run(run_id)["status"] == "waiting")
        assert (await lab.ended(run_id))["output"] == "went"


@in_loop
async def test_events_that_race_with_their_waits_end_each_of_them_once(store):
    ended = Counter()

    @function(on="a/b")
    async def f(ctx: Context) -> int:
        event = await ctx.step.wait_for_event("w", "c/d", match="data.id")
        ended[ctx.run_id] += 1
        return event.data["id"]

    database = open_database(store.url)
    journal, chance = ThreadJournal(database), random.Random(1)
    lab = Lab(store, f)

    async def elsewhere(n: int) -> None:
        run_id = runs[n]
        await lab.until(lambda: store.database.read("select 1 from queue where run_id = ? and first_started_at is not null", [run_id]))
        await asyncio.sleep(chance.uniform(0, 0.02))  # the moment is the random variable
        event_id = new_id("evt")
        event = EventRecord(event_id, "c/d", "test", event_id, lab.clock(), lab.clock(), b"{}", data=b'{"id": %d}' % n)
        await asyncio.wrap_future(journal.submit(Accept(event, ())))

    async with lab.working():
        runs = [(await lab.send("a/b", {"id": n}))[0] for n in range(60)]
        await asyncio.gather(*(elsewhere(n) for n in range(60)))
        assert [(await lab.ended(run_id))["output"] for run_id in runs] == list(range(60))
    journal.close()
    database.close()
    assert set(ended.values()) == {1}
    assert (store.count("waits"), store.count("queue")) == (0, 0)


@in_loop
async def test_a_child_that_ends_before_its_parent_is_parked_wakes_it_all_the_same(store):
    go_on = asyncio.Event()

    async def busy() -> None:
        await go_on.wait()

    @function()
    async def child(ctx: Context) -> str:
        return "done"

    @function(on="a/b")
    async def parent(ctx: Context) -> str:
        said, _ = await asyncio.gather(ctx.step.invoke("child", child), ctx.step.run("busy", busy))
        return said

    lab = Lab(store, parent, child)
    async with lab.working():
        [run_id] = await lab.send("a/b")
        await lab.until(lambda: lab.steps(run_id).get("child") == "succeeded")
        go_on.set()
        assert (await lab.ended(run_id))["output"] == "done"
    assert len(lab.runs("child")) == 1


@in_loop
async def test_g5_steps_committed_before_a_cancellation_are_not_done_again_after_a_retry(store):
    done = Counter()

    async def work(n: int) -> int:
        done[n] += 1
        await asyncio.sleep(0.003)
        return n

    @function(on="a/b")
    async def f(ctx: Context) -> list:
        return [await ctx.step.run(f"s{n}", work, n) for n in range(30)]

    lab = Lab(store, f)
    async with lab.working():
        for n in (1, 5, 12, 20):
            done.clear()
            [run_id] = await lab.send("a/b")
            await lab.until(lambda n=n: done[n])
            assert await lab.commit(CancelRun(run_id, lab.clock()))
            kept, before = set(lab.steps(run_id)), dict(done)
            assert await lab.commit(RetryRun(run_id, 5, lab.clock()))
            run = await lab.ended(run_id)
            assert run["output"] == list(range(30))
            assert len(kept) >= n
            assert {key for key in kept if done[int(key[1:])] > before[int(key[1:])]} == set()


def held_run(store) -> tuple:
    """A run that a worker holds, and the time."""
    now = 1_800_000_000_000_000
    event_id = new_id("evt")
    event = EventRecord(event_id, "a/b", "test", event_id, now, now, b"{}", data=b"{}")
    store.do(Accept(event, (NewDelivery("f", 5, new_id("run")),)))
    store.do(Heartbeat("w1", "worker", "host", 1, now, 10**9))
    return store.do(Claim("w1", ("f",), 10, now)).runs[0], now


def waiting(run, now: int, kind: str = "signal") -> Remember:
    condition = any_event("c/d") if kind == "event" else None
    match = condition.hash if condition else signal_hash("go")
    step = Step("w", kind, "waiting", 1, 0, now, due_at=now + 5)
    return Remember(run.run_id, run.fence, step, True, wait=Wait(kind, match, now, now + 5, condition))


def test_of_a_timeout_an_event_a_signal_and_a_cancellation_at_once_exactly_one_ends_the_wait(store):
    databases = [open_database(store.url) for _ in range(4)]
    journals = [ThreadJournal(database) for database in databases]
    seen = Counter()
    with ThreadPoolExecutor(4) as pool:
        for _ in range(40):
            run, now = held_run(store)
            wait = waiting(run, now)
            assert store.do(wait)
            late = Step("w", "signal", "succeeded", 1, 0, now, finished_at=now + 5)
            rivals = [
                GiveUp(run.run_id, run.fence, late),
                EndWaits((WaitEnd(run.run_id, "w", wait.wait.match_hash, now + 5, b'"event"'),)),
                SendSignal(signal_hash("go"), b'"signal"', now + 5),
                CancelRun(run.run_id, now + 5),
            ]
            order, barrier = random.sample(range(4), 4), threading.Barrier(4)

            def one(n: int, rivals=rivals, barrier=barrier):
                barrier.wait()
                return n, journals[n].submit(rivals[n]).result(timeout=20)

            results = dict(pool.map(one, order))
            step = store.database.read("select status, output from steps where run_id = ?", [run.run_id])[0]
            ended = [b'"event"'] * results[1] + [b'"signal"'] * results[2]
            output = None if step["output"] is None else bytes(step["output"])
            assert ended == ([] if output is None else [output])
            assert results[3] is True
            seen[output or step["status"]] += 1
            assert store.count("waits") == 0
    for journal, database in zip(journals, databases, strict=True):
        journal.close()
        database.close()
    assert len(seen) > 1, "the race has more than one winner"


def contents(store) -> dict:
    return {table: sorted(map(repr, store.database.read(f"select * from {table}"))) for table in TABLES}


def test_g5_commands_of_steps_and_waits_repeated_after_their_answer_got_lost_change_nothing(store):
    run, now = held_run(store)
    failed = Step("r", "run", "retrying", 2, 1, now, due_at=now + 1, error=Failure("E", "no"))
    event = EventRecord(new_id("evt"), "c/d", "functions", "k", now + 1, now + 1, b"{}", data=b"{}")
    child = EventRecord(new_id("evt"), "x/y", "functions", "c", now, now, b"{}", data=b"{}")
    delivery = NewDelivery("g", 5, new_id("run"), parent_id=run.run_id, parent_key="i")
    invoked = Step("i", "invoke", "waiting", 4, 0, now, subject=delivery.run_id)
    sent = Step("s", "send", "succeeded", 3, 0, now, finished_at=now, output=b"[]")
    signal, match = waiting(run, now), any_event("c/d").hash
    elsewhere = waiting(run, now, "event")
    awaited = Remember(run.run_id, run.fence, Step("e", "event", "waiting", 5, 0, now), True, wait=elsewhere.wait)
    commands = (
        signal,
        awaited,
        Remember(run.run_id, run.fence, failed, True, Try(1, now, now, Failure("E", "no"))),
        Horizon(),
        Dispatch(run.run_id, run.fence, sent, (Accept(event, ()),)),
        Dispatch(run.run_id, run.fence, invoked, (Accept(child, (delivery,)),), wait=Wait("invoke", b"i" * 16, now, None)),
        EndWaits((WaitEnd(run.run_id, "e", match, now + 2, b"{}"),), (Arrival(match, event.id),)),
        awaited,
        Settle("c/d", "", (Arrival(match, event.id),)),
        SendSignal(signal_hash("go"), b"1", now + 2),
        signal,
        GiveUp(run.run_id, run.fence, Step("i", "invoke", "failed", 4, 0, now, finished_at=now, error=Failure("TimeoutError", "late"))),
        Dispatch(run.run_id, run.fence, invoked, (Accept(child, (delivery,)),), wait=Wait("invoke", b"i" * 16, now, None)),
        CancelRun(run.run_id, now + 3),
    )
    once: dict = {}
    for n, command in enumerate(commands):
        store.do(command)
        assert command not in commands[:n] or contents(store) == once, "repeated when what it waits for has come"
        once = contents(store)
        store.do(command)
        assert contents(store) == once, command
    assert store.count("waits") == 0


def test_g6_a_worker_that_has_lost_its_run_neither_remembers_nor_sends_nor_gives_up(store):
    run, now = held_run(store)
    wait = waiting(run, now)
    assert store.do(wait)
    before = contents(store)
    stale, step = run.fence - 1, Step("x", "run", "succeeded", 2, 1, now, finished_at=now, output=b"1")
    event = EventRecord(new_id("evt"), "c/d", "functions", "k", now, now, b"{}", data=b"{}")
    assert store.do(Remember(run.run_id, stale, step, True)) is False
    assert store.do(Dispatch(run.run_id, stale, step, (Accept(event, ()),))) is None
    assert store.do(GiveUp(run.run_id, stale, wait.step)) is None
    assert contents(store) == before
