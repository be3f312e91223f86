"""What a step is given wrongly is told at once, by the step's name and with what it takes."""

from __future__ import annotations

import asyncio
import gc
import math
from datetime import UTC, datetime, timedelta

import pytest

from gateway import Context, Event, SyncContext, function, new_event
from gateway.core.steps import NewEvent
from tests.engine.lab import Lab, in_loop


async def ok(n: int = 0) -> int:
    return n


@function(on="x/y")
async def other(ctx: Context) -> None: ...


WRONG = {
    "run a coroutine": (lambda s: s.run("a", ok(3)), "step.run('a') takes a function and then its arguments; not ok(…), which"),
    "run a value": (lambda s: s.run("a", 3), "step.run('a') takes a function and then its arguments; not 3"),
    "map nothing": (lambda s: s.map("a", ok, 7), "step.map('a') takes a function and a list of items; not 7"),
    "map none at a time": (lambda s: s.map("a", ok, [1], limit=0), "step.map('a'): `limit` is a whole number from 1; not 0"),
    "map half": (lambda s: s.map("a", ok, [1], limit=1.5), "step.map('a'): `limit` is a whole number from 1; not 1.5"),
    "sleep": (lambda s: s.sleep("a"), "step.sleep('a') needs a length, such as hours=1"),
    "sleep 1": (lambda s: s.sleep("a", 1), "step.sleep('a') takes a timedelta, or days=, hours=, minutes= and seconds=; not 1"),
    "sleep text": (lambda s: s.sleep("a", hours="1"), "step.sleep('a'): `hours` is a number; not '1'"),
    "sleep nan": (lambda s: s.sleep("a", hours=math.nan), "step.sleep('a'): `hours` is a number; not nan"),
    "sleep inf": (lambda s: s.sleep("a", days=math.inf), "step.sleep('a'): `days` is a number; not inf"),
    "sleep for ever": (lambda s: s.sleep("a", hours=10**9), "step.sleep('a') would last beyond the year 9999"),
    "sleep longer": (lambda s: s.sleep("a", hours=10**400), "step.sleep('a') would last beyond the year 9999"),
    "until text": (lambda s: s.sleep_until("a", "2027-01-01"), "step.sleep_until('a') takes an aware datetime, such as"),
    "until naive": (lambda s: s.sleep_until("a", datetime(2027, 1, 1)), "step.sleep_until('a') needs a datetime with a time zone"),
    "wildcard": (lambda s: s.wait_for_event("a", "g/*"), "step.wait_for_event('a'): 'g/*' is a wildcard; name one event, such as"),
    "no name": (lambda s: s.wait_for_event("a", "nonsense name"), "step.wait_for_event('a'): 'nonsense name' is no event name: use"),
    "no class": (lambda s: s.wait_for_event("a", Event), "step.wait_for_event('a') takes an event class that has a name, or a name"),
    "bad path": (lambda s: s.wait_for_event("a", "g/h", match="id"), "step.wait_for_event('a'): `match` is a path into the data"),
    "lacks": (lambda s: s.wait_for_event("a", "g/h", match="data.no"), "step.wait_for_event('a'): `match`: the event a/b has nothing"),
    "bad CEL": (lambda s: s.wait_for_event("a", "g/h", if_="1 +"), "step.wait_for_event('a'): `if_` is not a valid CEL expression"),
    "timeout text": (lambda s: s.wait_for_event("a", "g/h", timeout="5"), "step.wait_for_event('a'): `timeout` is a timedelta or seconds"),
    "timeout nan": (lambda s: s.wait_for_signal("a", "s", timeout=math.nan), "step.wait_for_signal('a'): `timeout` is a timedelta or"),
    "timeout late": (lambda s: s.wait_for_signal("a", "s", timeout=1e300), "step.wait_for_signal('a') would last beyond the year 9999"),
    "signal": (lambda s: s.wait_for_signal("a", ""), "step.wait_for_signal('a') takes a signal's name of 1 to 200 characters"),
    "invoke": (lambda s: s.invoke("a", ok), "step.invoke('a') takes a function declared with @function, or its id; not <function ok"),
    "send a dict": (lambda s: s.send_event("a", {"n": 1}), "step.send_event('a') takes events made by `UserCreated.new(…)` or"),
    "send a text": (lambda s: s.send_event("a", "a/b"), "step.send_event('a') takes events made by `UserCreated.new(…)` or"),
    "send as us": (
        lambda s: s.send_event("a", NewEvent("tidegate/function.failed", b"{}")),
        "step.send_event('a'): Event name 'tidegate/function.failed': what begins with `tidegate/` is sent by Tidegate alone",
    ),
    "options": (lambda s: s.with_options(timeout="5").run("a", ok), "step.with_options: `timeout` is a timedelta or seconds"),
    "retries": (lambda s: s.with_options(retries="1").run("a", ok), "step.with_options: `retries` is a whole number from 0 to 100"),
}  # fmt: skip


@in_loop
async def test_each_wrong_argument_fails_the_run_at_once_with_one_error_that_names_the_step(store):
    @function(on="a/b", retries=4)
    async def coroutine(ctx: Context) -> None:
        await WRONG[ctx.event.data["wrong"]][0](ctx.step)

    @function(on="a/b", retries=4)
    def plain(ctx: SyncContext) -> None:
        WRONG[ctx.event.data["wrong"]][0](ctx.step)

    lab = Lab(store, coroutine, plain)
    async with lab.working():
        runs = {wrong: await lab.send("a/b", {"wrong": wrong}) for wrong in WRONG}
        for wrong, run_ids in runs.items():
            for run_id in run_ids:
                run = await lab.ended(run_id)
                assert (run["status"], run["error"]["type"]) == ("failed", "DeclarationError"), (wrong, run["error"])
                assert run["error"]["message"].startswith(WRONG[wrong][1]), (wrong, run["error"]["message"])
                assert lab.steps(run_id) == {}, wrong


@in_loop
async def test_a_length_that_came_out_as_none_or_less_is_over_at_once(store):
    @function(on="a/b")
    async def f(ctx: Context) -> str:
        await ctx.step.sleep("none", seconds=0)
        await ctx.step.sleep("less", timedelta(hours=-1))
        await ctx.step.sleep("far less", days=-999_999)
        await ctx.step.sleep_until("past", datetime(2000, 1, 1, tzinfo=UTC))
        return "at once"

    lab = Lab(store, f)
    async with lab.working():
        [run_id] = await lab.send("a/b")
        assert (await lab.ended(run_id))["output"] == "at once"


@in_loop
async def test_a_step_that_took_too_long_says_how_long_it_may_take(store):
    async def long() -> None:
        await asyncio.Event().wait()

    async def own() -> None:
        raise TimeoutError("the bank does not answer")

    @function(on="a/b", retries=0)
    async def f(ctx: Context) -> None:
        await ctx.step.with_options(timeout=0.05).run(ctx.event.data, {"long": long, "own": own}[ctx.event.data])

    lab = Lab(store, f)
    async with lab.working():
        runs = [(await lab.send("a/b", name))[0] for name in ("long", "own")]
        said = [(await lab.ended(run_id))["error"]["message"] for run_id in runs]
    assert said == [
        "step 'long' failed: TimeoutError: it took longer than its timeout of 0.05 s",
        "step 'own' failed: TimeoutError: the bank does not answer",
    ]


@in_loop
async def test_a_step_of_another_run_that_is_over_says_so(store):
    kept = []

    @function(on="a/b", retries=0)
    async def coroutine(ctx: Context) -> None:
        kept.append(ctx)
        await kept[0].step.run("late", ok)

    @function(on="x/y", retries=0)
    def plain(ctx: SyncContext) -> None:
        kept.append(ctx)
        kept[0].step.run("late", ok)

    lab = Lab(store, coroutine, plain)
    async with lab.working():
        for name in ("a/b", "x/y"):
            kept.clear()
            [first] = await lab.send(name)
            assert (await lab.ended(first))["status"] == "succeeded"
            [second] = await lab.send(name)
            run = await lab.ended(second)
            assert (run["status"], run["error"]["type"]) == ("failed", "DeclarationError")
            assert f"another attempt, number 1 of run {first}, which has ended" in run["error"]["message"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@in_loop
async def test_a_step_that_is_made_and_never_awaited_is_told_in_the_run(store):
    @function(on="a/b")
    async def f(ctx: Context) -> str:
        ctx.step.run("forgotten", ok)  # type: ignore[unused-coroutine]
        ctx.step.map("items", ok, [1])  # type: ignore[unused-coroutine]
        ctx.step.send_event("told", new_event("c/d"))  # type: ignore[unused-coroutine]
        await ctx.step.run("awaited", ok, n=1)
        await asyncio.gather(ctx.step.run("beside", ok), ctx.step.sleep("nap", seconds=0))
        return "done"

    lab = Lab(store, f)
    async with lab.working():
        [run_id] = await lab.send("a/b")
        assert (await lab.ended(run_id))["output"] == "done"
    assert lab.said(run_id) == [
        f"step '{id}' was never awaited, so that it was not done: write `await ctx.step.…`" for id in ("forgotten", "items", "told")
    ]
    gc.collect()  # Python's own warning comes when they are collected


@in_loop
async def test_a_plain_function_that_exits_is_told_by_what_it_raised(store):
    @function(on="a/b", retries=0)
    def f(ctx: SyncContext) -> None:
        raise SystemExit(3)

    lab = Lab(store, f)
    async with lab.working():
        [run_id] = await lab.send("a/b")
        error = (await lab.ended(run_id))["error"]
    assert (error["type"], error["message"]) == ("SystemExit", "3")
