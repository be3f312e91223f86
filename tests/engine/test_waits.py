"""What a run can wait for: events, signals, other runs; and what ends it from outside."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from dataclasses import dataclass

import pytest

from gateway import CancelOn, Context, Event, NonRetriableError, RetryAfterError, StepError, SyncContext, Timeouts, function
from gateway.core.waits import signal_hash
from gateway.store.admin import CancelRun, Pause, Resume, RetryRun
from gateway.store.waits import SendSignal
from tests.engine.lab import Lab, in_loop

HOUR = 3600


@dataclass
class Parcel:
    order_id: float
    weight: float = 0.0


class OrderMade(Event[Parcel], name="order/made"): ...


class OrderShipped(Event[Parcel], name="order/shipped"): ...


@function(on=OrderMade)
async def by_match(ctx: Context[OrderMade]) -> object:
    found = await ctx.step.wait_for_event("ship", OrderShipped, match="data.order_id", timeout=HOUR)
    return None if found is None else found.data.weight


@function(on=OrderMade)
async def by_expression(ctx: Context[OrderMade]) -> object:
    found = await ctx.step.wait_for_event(
        "ship", OrderShipped, if_="async.data.order_id == event.data.order_id && async.data.weight > 1.0", timeout=HOUR
    )
    return None if found is None else found.data.weight


@function(on=OrderMade)
def by_name(ctx: SyncContext[OrderMade]) -> object:
    found = ctx.step.wait_for_event("ship", "order/shipped", timeout=HOUR)
    return None if found is None else found.data["weight"]


@in_loop
async def test_an_event_ends_the_waits_it_matches_and_no_others(store):
    lab = Lab(store, by_match, by_expression, by_name)
    async with lab.working():
        first, second = await lab.send("order/made", {"order_id": 1}), await lab.send("order/made", {"order_id": 2})
        for run_id in first + second:
            await lab.parked(run_id, "event")
        await lab.send("order/shipped", {"order_id": 3, "weight": 0.1})
        for run_id in (first[2], second[2]):
            assert (await lab.ended(run_id))["output"] == 0.1
        await lab.send("order/shipped", {"order_id": 1.0, "weight": 0.5})
        assert (await lab.ended(first[0]))["output"] == 0.5
        await lab.send("order/shipped", {"order_id": 1, "weight": 2})
        assert (await lab.ended(first[1]))["output"] == 2
        lab.pass_time(HOUR + 1)
        assert [(await lab.ended(run_id))["output"] for run_id in second[:2]] == [None, None]
    assert store.count("waits") == 0


@in_loop
async def test_an_event_that_came_between_the_start_and_the_wait_is_found_and_an_older_one_is_not(store):
    came = asyncio.Event()

    @function(on=OrderMade)
    async def f(ctx: Context[OrderMade]) -> object:
        await came.wait()
        found = await ctx.step.wait_for_event("ship", OrderShipped, match="data.order_id", timeout=HOUR)
        return found and found.data.weight

    lab = Lab(store, f)
    for known in (False, True):  # the first wait ever for the name, and one for which arrivals are kept
        came.clear()
        async with lab.working():
            await lab.send("order/shipped", {"order_id": 1, "weight": 0.1})
            [run_id] = await lab.send("order/made", {"order_id": 1})
            await lab.until(lambda run_id=run_id: store.reads.run(run_id)["status"] == "running")
            await lab.send("order/shipped", {"order_id": 1, "weight": 0.2})
            came.set()
            assert (await lab.ended(run_id))["output"] == 0.2, f"known: {known}"


@in_loop
async def test_the_event_that_triggered_a_run_is_not_what_it_waits_for(store):
    @function(on=OrderMade)
    async def f(ctx: Context[OrderMade]) -> object:
        return await ctx.step.wait_for_event("again", OrderMade, match="data.order_id", timeout=HOUR) and "again"

    lab = Lab(store, f)
    async with lab.working():
        [run_id] = await lab.send("order/made", {"order_id": 1})
        await lab.parked(run_id, "event")
        await lab.send("order/made", {"order_id": 1})
        assert (await lab.ended(run_id))["output"] == "again"


@in_loop
async def test_waits_in_a_loop_get_every_event_once(store):
    @function(on="a/b")
    async def f(ctx: Context) -> list:
        found = []
        while len(found) < 5:
            event = await ctx.step.wait_for_event("next", "order/shipped", match="data.order_id")
            found.append(event.data["n"])
        return found

    lab = Lab(store, f)
    async with lab.working():
        [run_id] = await lab.send("a/b", {"order_id": 1})
        await lab.parked(run_id, "event")
        for n in range(5):
            await lab.send("order/shipped", {"order_id": 1, "n": n})
        assert sorted((await lab.ended(run_id))["output"]) == [0, 1, 2, 3, 4]


@in_loop
async def test_a_value_that_the_own_event_lacks_fails_the_run_and_says_so(store):
    @function(on="a/b")
    async def f(ctx: Context) -> None:
        await ctx.step.wait_for_event("ship", OrderShipped, match="data.order_id")

    lab = Lab(store, f)
    async with lab.working():
        [run_id] = await lab.send("a/b", {})
        assert "nothing at `data.order_id`" in (await lab.ended(run_id))["error"]["message"]


@in_loop
async def test_a_signal_ends_every_wait_for_it_and_brings_its_data(store):
    @function(on="a/b")
    async def f(ctx: Context) -> object:
        return await ctx.step.wait_for_signal("approval", f"approval-{ctx.event.data}", timeout=HOUR)

    lab = Lab(store, f)
    async with lab.working():
        runs = [(await lab.send("a/b", n))[0] for n in (1, 1, 2)]
        for run_id in runs:
            await lab.parked(run_id, "signal")
        assert await lab.commit(SendSignal(signal_hash("approval-1"), b'{"by":"me"}', lab.clock())) == 2
        assert await lab.commit(SendSignal(signal_hash("approval-1"), b"2", lab.clock())) == 0
        assert [(await lab.ended(run_id))["output"] for run_id in runs[:2]] == [{"by": "me"}] * 2
        lab.pass_time(HOUR + 1)
        assert (await lab.ended(runs[2]))["output"] is None


@in_loop
async def test_an_invoked_function_runs_once_and_its_typed_output_comes_back(store):
    done = Counter()

    @function(on=OrderMade)
    async def child(ctx: Context[OrderMade]) -> Parcel:
        done["child"] += 1
        return ctx.event.data

    @function(on="a/b", retries=1)
    async def parent(ctx: Context) -> float:
        found = await ctx.step.invoke("child", child, Parcel(7, 1.5))
        if ctx.attempt == 1:
            raise RetryAfterError(HOUR, "after it")
        return found.weight

    lab = Lab(store, child, parent)
    async with lab.working():
        [run_id] = await lab.send("a/b")
        await lab.parked(run_id, "retry")
        lab.pass_time(HOUR)
        assert (await lab.ended(run_id))["output"] == 1.5
    assert done == {"child": 1}
    [one] = lab.runs("child")
    assert one["parent_id"] == run_id


@in_loop
async def test_the_failure_the_cancellation_and_the_lateness_of_an_invoked_run_are_errors_of_the_step(store):
    @function(on=(), retries=0)
    async def bad(ctx: Context) -> None:
        raise NonRetriableError("no way")

    @function(on=())
    async def slow(ctx: Context) -> None:
        await ctx.step.sleep("long", days=1)

    @function(on="a/b")
    async def parent(ctx: Context) -> list:
        said = []
        for n, child in enumerate((bad, slow, slow)):
            try:
                await ctx.step.invoke(f"child {n}", child, timeout=None if n == 1 else HOUR)
            except StepError as error:
                said.append(error.type)
        return said

    lab = Lab(store, bad, slow, parent)
    async with lab.working():
        [run_id] = await lab.send("a/b")
        child = (await lab.until(lambda: lab.runs("slow")))[0]
        await lab.parked(child["id"], "sleep")
        await lab.commit(CancelRun(child["id"], lab.clock()))
        late = (await lab.until(lambda: lab.runs("slow")[1:]))[0]
        await lab.parked(late["id"], "sleep")
        await lab.parked(run_id, "invoke")
        lab.pass_time(HOUR + 1)
        assert (await lab.ended(run_id))["output"] == ["NonRetriableError", "Cancelled", "TimeoutError"]
    assert lab.run(late["id"])["status"] == "waiting"


@in_loop
async def test_a_cancelled_run_stops_at_its_next_await_or_step_within_a_second_and_is_final(store):
    stopped, threads = [], threading.Event()

    @function(on="a/b")
    async def waits(ctx: Context) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            stopped.append("async")
            raise

    @function(on="a/b")
    def works(ctx: SyncContext) -> None:
        threads.wait(20)
        try:
            ctx.step.run("next", stopped.append, "never")
        except BaseException:
            stopped.append("sync")
            raise

    lab = Lab(store, waits, works)
    async with lab.working():
        runs = await lab.send("a/b")
        await lab.until(lambda: all(store.reads.run(run_id)["status"] == "running" for run_id in runs))
        for run_id in runs:
            assert await lab.commit(CancelRun(run_id, lab.clock()))
        await lab.until(lambda: "async" in stopped, seconds=2)
        await lab.until(lambda: [facts["move"] for name, facts in lab.facts if name == "run.ended"] == ["cancel"] * 2)
        threads.set()
        await lab.until(lambda: "sync" in stopped)
    assert sorted(stopped) == ["async", "sync"]
    assert [lab.run(run_id)["status"] for run_id in runs] == ["cancelled"] * 2
    assert [row["outcome"] for row in store.reads.attempts(runs)] == ["cancelled"] * 2


@in_loop
async def test_cancel_on_cancels_the_run_that_matches_sleeping_or_not_yet_started(store):
    @function(on=OrderMade, cancel_on=CancelOn("order/cancelled", match="data.order_id"))
    async def f(ctx: Context[OrderMade]) -> None:
        await ctx.step.sleep("long", hours=1)

    lab = Lab(store, f)
    [unstarted] = await lab.send("order/made", {"order_id": 1})
    await lab.send("order/cancelled", {"order_id": 1})
    async with lab.working():
        assert (await lab.ended(unstarted))["status"] == "cancelled"
        sleeping = [(await lab.send("order/made", {"order_id": n}))[0] for n in (2, 3)]
        for run_id in sleeping:
            await lab.parked(run_id, "sleep")
        await lab.send("order/cancelled", {"order_id": 2})
        run = await lab.ended(sleeping[0])
        assert run["status"] == "cancelled"
        assert "order/cancelled" in run["error"]["message"]
        lab.pass_time(HOUR + 1)
        assert (await lab.ended(sleeping[1]))["status"] == "succeeded"
    assert store.count("waits") == 0


@in_loop
async def test_a_run_whose_own_event_lacks_what_cancel_on_matches_says_so_once(store):
    @function(on="a/b", cancel_on=[CancelOn("a/stop", match="data.order_id"), CancelOn("a/end", match="data.id")])
    async def f(ctx: Context) -> None:
        await ctx.step.sleep("long", hours=1)

    lab = Lab(store, f)
    async with lab.working():
        [run_id] = await lab.send("a/b", {"id": 1})
        await lab.parked(run_id, "sleep")
        lab.pass_time(HOUR + 1)
        await lab.ended(run_id)
    assert lab.said(run_id) == ["no a/stop can cancel this run: its own event a/b has nothing at `data.order_id` (cancel_on)"]


@in_loop
async def test_timeouts_of_the_whole_run_cancel_it(store):
    @function(on="a/b", timeouts=Timeouts(start=60))
    async def late(ctx: Context) -> None: ...

    @function(on="a/b", timeouts=Timeouts(finish=HOUR))
    async def long(ctx: Context) -> None:
        await ctx.step.sleep("half", minutes=30)
        await ctx.step.sleep("rest", hours=5)

    @function(on="a/b", timeouts=Timeouts(finish=0.2))
    async def busy(ctx: Context) -> None:
        await asyncio.sleep(3600)

    lab = Lab(store, late, long, busy)
    runs = await lab.send("a/b")
    lab.pass_time(61)
    async with lab.working():
        assert "could not be started within 60 s" in (await lab.ended(runs[0]))["error"]["message"]
        assert "had not finished 0.2 s after its start" in (await lab.ended(runs[2]))["error"]["message"]
        await lab.parked(runs[1], "sleep")
        lab.pass_time(31 * 60)
        await lab.until(lambda: "rest" in lab.steps(runs[1]))
        await lab.parked(runs[1], "sleep")
        lab.pass_time(31 * 60)
        assert (await lab.ended(runs[1]))["status"] == "cancelled"
    assert [lab.run(run_id)["status"] for run_id in runs] == ["cancelled"] * 3


@in_loop
async def test_a_functions_idempotency_key_lets_one_run_through_until_its_window_is_over(store):
    @function(on="a/b", idempotency="event.data.cart_id")
    async def f(ctx: Context) -> object:
        return ctx.event.data

    lab = Lab(store, f)
    async with lab.working():
        for data in ({"cart_id": 1}, {"cart_id": 1}, {"cart_id": "1"}, {}, {}):
            await lab.send("a/b", data)
        await lab.until(lambda: len(lab.runs("f")) == 4)
        lab.pass_time(24 * HOUR + 1)
        await lab.send("a/b", {"cart_id": 1})
        await lab.until(lambda: len(lab.runs("f")) == 5)
    skipped = store.database.read("select skip_reason from deliveries where run_id is null")
    assert [row["skip_reason"] for row in skipped] == ["idempotent"]


@in_loop
async def test_a_failure_is_handled_once_as_a_run_of_its_own_and_told_as_an_event(store):
    async def handle(ctx: Context[OrderMade]) -> list:
        return [ctx.failed_run_id, ctx.failure.message, ctx.event.data.order_id]

    @function(on=OrderMade, retries=0, on_failure=handle)
    async def f(ctx: Context[OrderMade]) -> None:
        raise ValueError("no luck")

    @function(on="tidegate/function.*")
    async def watch(ctx: Context) -> list:
        return [ctx.event.name, ctx.event.data["function_id"]]

    lab = Lab(store, f, watch)
    async with lab.working():
        [run_id] = await lab.send("order/made", {"order_id": 9})
        handled = (await lab.until(lambda: [run for run in lab.runs("f.on-failure") if run["status"] == "succeeded"]))[0]
        assert handled["output"] == [run_id, "no luck", 9]
        names = {"tidegate/function.failed", "tidegate/function.finished"}
        await lab.until(lambda: {run["output"][0] for run in lab.runs("watch") if run["output"]} == names)
        await lab.until(lambda: store.count("endings") == 0)
    assert len(lab.runs("f.on-failure")) == 1
    assert sorted(run["output"] for run in lab.runs("watch")) == [
        ["tidegate/function.failed", "f"],
        ["tidegate/function.finished", "f.on-failure"],
    ]


@in_loop
async def test_a_retried_run_keeps_the_steps_that_succeeded_and_tries_the_others_again(store):
    done, broken = Counter(), [True]

    async def work(name: str) -> str:
        done[name] += 1
        if name == "bad" and broken:
            raise NonRetriableError("not yet")
        return name

    @function(on="a/b")
    async def f(ctx: Context) -> str:
        return await ctx.step.run("good", work, "good") + await ctx.step.run("bad", work, "bad")

    lab = Lab(store, f)
    async with lab.working():
        [run_id] = await lab.send("a/b")
        assert (await lab.ended(run_id))["status"] == "failed"
        broken.clear()
        assert await lab.commit(RetryRun(run_id, 5, lab.clock()))
        assert (await lab.ended(run_id))["output"] == "goodbad"
    assert done == {"good": 1, "bad": 2}


async def deployed(lab: Lab, run_id: str, *functions) -> dict:
    """What becomes of a run that sleeps when the code is another one at its wake-up."""
    async with lab.working():
        await lab.parked(run_id, "sleep")
    lab.publish(*functions)
    lab.pass_time(HOUR + 1)
    async with lab.working():
        return await lab.ended(run_id)


def sleeper(*after: str, kind: str = "run", **options):
    @function(on="a/b", id="f", **options)
    async def f(ctx: Context) -> list:
        first = await ctx.step.run("first", str, "1")
        await ctx.step.sleep("nap", hours=1)
        if kind == "sleep":
            await ctx.step.sleep("first", hours=1)
        return [first, *[await ctx.step.run(name, str, name) for name in after]]

    return f


@in_loop
async def test_new_steps_run_in_a_run_that_slept_through_a_deploy(store):
    lab = Lab(store, sleeper())
    [run_id] = await lab.send("a/b")
    assert (await deployed(lab, run_id, sleeper("new")))["output"] == ["1", "new"]


@in_loop
async def test_a_step_that_is_of_another_kind_now_fails_the_run_and_names_both(store):
    @function(on="a/b", id="f")
    async def changed(ctx: Context) -> None:
        await ctx.step.sleep("first", hours=1)

    lab = Lab(store, sleeper())
    [run_id] = await lab.send("a/b")
    error = (await deployed(lab, run_id, changed))["error"]
    assert error["type"] == "StepMismatch"
    assert "`step.run`" in error["message"]
    assert "`step.sleep`" in error["message"]


@in_loop
async def test_a_step_that_is_never_reached_again_is_reported_in_the_run(store):
    @function(on="a/b", id="f")
    async def changed(ctx: Context) -> str:
        await ctx.step.sleep("nap", hours=1)
        return "done"

    lab = Lab(store, sleeper())
    [run_id] = await lab.send("a/b")
    assert (await deployed(lab, run_id, changed))["status"] == "succeeded"
    assert any("step 'first' was done earlier" in line for line in lab.said(run_id))


@in_loop
async def test_a_run_goes_on_with_the_version_that_began_it(store):
    lab = Lab(store, sleeper("old", version=1))
    runs = [(await lab.send("a/b"))[0] for _ in range(2)]
    assert (await deployed(lab, runs[0], sleeper("old", version=1), sleeper("new", version=2)))["output"] == ["1", "old"]
    [fresh] = await lab.send("a/b")
    assert store.database.read("select function_id from queue where run_id = ?", [fresh])[0]["function_id"] == "f@2"


@in_loop
async def test_a_run_whose_version_is_gone_is_held_until_it_is_back(store):
    lab = Lab(store, sleeper("old", version=1))
    [run_id] = await lab.send("a/b")
    async with lab.working():
        await lab.parked(run_id, "sleep")
    lab.publish(sleeper("new", version=2))
    assert store.reads.run(run_id)["held"] == 1
    [homeless] = store.reads.homeless()
    assert (homeless["function_id"], homeless["n"], homeless["run_id"]) == ("f@1", 1, run_id)
    assert (await deployed(lab, run_id, sleeper("old", version=1), sleeper("new", version=2)))["output"] == ["1", "old"]


@in_loop
async def test_a_paused_function_starts_no_run_and_wakes_none(store):
    lab = Lab(store, sleeper(version=1))
    [run_id] = await lab.send("a/b")
    async with lab.working():
        await lab.parked(run_id, "sleep")
        await lab.commit(Pause(("f", "f@1"), lab.clock()))
        lab.pass_time(HOUR + 1)
        await asyncio.sleep(0.1)
        assert store.reads.run(run_id)["status"] == "waiting"
        await lab.commit(Resume(("f", "f@1")))
        assert (await lab.ended(run_id))["status"] == "succeeded"


@pytest.mark.parametrize("how", ["return", "raise"])
@in_loop
async def test_a_run_that_ends_while_it_waits_leaves_no_wait_behind(store, how):
    @function(on="a/b", retries=0)
    async def f(ctx: Context) -> None:
        waiting = asyncio.ensure_future(ctx.step.wait_for_event("never", "c/d"))
        await ctx.step.run("work", str, "x")
        waiting.cancel()
        if how == "raise":
            raise ValueError

    lab = Lab(store, f)
    async with lab.working():
        [run_id] = await lab.send("a/b")
        await lab.ended(run_id)
    assert store.count("waits") == 0
