"""Steps: what is done once stays done, through failures, sleeps and side-by-side branches."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypedDict

import pytest
from pydantic import BaseModel

from gateway import Context, NonRetriableError, RetryAfterError, StepError, SyncContext, function, new_event
from tests.engine.lab import Lab, in_loop

HOUR = 3600


@dataclass
class Order:
    id: int


class Model(BaseModel):
    id: int


class Item(TypedDict):
    id: int


@in_loop
async def test_g5_steps_before_a_failure_are_not_done_again(store):
    done = Counter()

    async def once(name: str) -> str:
        done[name] += 1
        return name

    @function(on="a/b", retries=2)
    async def f(ctx: Context) -> str:
        first = await ctx.step.run("first", once, "first")
        if ctx.attempt == 1:
            raise RetryAfterError(HOUR, "between the steps")
        return first + await ctx.step.run("second", once, "second")

    lab = Lab(store, f)
    async with lab.working():
        [run_id] = await lab.send("a/b")
        await lab.parked(run_id, "retry")
        lab.pass_time(HOUR)
        run = await lab.ended(run_id)
    assert run["output"] == "firstsecond"
    assert done == {"first": 1, "second": 1}


@in_loop
async def test_results_come_back_as_what_the_function_says_it_returns_now_and_later(store):
    seen = []

    async def order() -> Order:
        return Order(1)

    def model() -> Model:
        return Model(id=2)

    async def item() -> Item:
        return {"id": 3}

    async def plain():
        return (4, 5)

    @function(on="a/b")
    async def f(ctx: Context) -> None:
        found = [await ctx.step.run(one.__name__, one) for one in (order, model, item, plain)]
        seen.append(found)
        await ctx.step.sleep("later", hours=1)

    lab = Lab(store, f)
    async with lab.working():
        [run_id] = await lab.send("a/b")
        await lab.parked(run_id, "sleep")
        lab.pass_time(HOUR)
        await lab.ended(run_id)
    assert seen == [[Order(1), Model(id=2), {"id": 3}, [4, 5]]] * 2


@dataclass
class Boxed:
    model: Model
    count: int


class Other(BaseModel):
    name: str


@in_loop
async def test_models_inside_of_other_types_come_back_from_steps_and_invoked_functions(store):
    values = [[Model(id=1)], {"a": Model(id=2)}, (Model(id=3), 4), Model(id=5), None, Boxed(Model(id=6), 7), Other(name="x")]
    kinds = [list[Model], dict[str, Model], tuple[Model, int], Model | None, Model | None, Boxed, Model | Other]
    seen = []

    def returning(kind: type, value: object):
        async def made():
            return value

        made.__annotations__["return"] = kind
        return made

    @function(id="child")
    async def child(ctx: Context) -> Model | None:
        return Model(id=8)

    @function(on="a/b", retries=0)
    async def f(ctx: Context) -> None:
        found = [await ctx.step.run("made", returning(kind, value)) for kind, value in zip(kinds, values, strict=True)]
        seen.append([*found, await ctx.step.invoke("child", child)])

    lab = Lab(store, f, child)
    async with lab.working():
        [run_id] = await lab.send("a/b")
        run = await lab.ended(run_id)
    assert (run["status"], run["error"]) == ("succeeded", None)
    assert seen == [[*values, Model(id=8)]]


@in_loop
async def test_a_result_that_is_not_what_the_function_says_names_step_type_and_path(store):
    async def wrong() -> list[Model]:
        return [Model(id=1), {"id": "x"}]  # type: ignore[list-item]

    @function(on="a/b", retries=0)
    async def f(ctx: Context) -> None:
        await ctx.step.run("wrong", wrong)

    lab = Lab(store, f)
    async with lab.working():
        [run_id] = await lab.send("a/b")
        run = await lab.ended(run_id)
    message = run["error"]["message"]
    assert message.startswith("step 'wrong': what its function returned does not fit list[")
    assert message.endswith("unable to parse string as an integer - at `$[1].id`")


@in_loop
async def test_a_failing_step_is_tried_again_on_its_own_and_its_tries_are_kept(store, monkeypatch):
    monkeypatch.setattr("gateway.engine.ledger.backoff_seconds", lambda tries: HOUR)  # it is drawn from 0 on, and may be over unseen
    tries = Counter()

    async def flaky() -> str:
        tries["flaky"] += 1
        if tries["flaky"] < 3:
            raise ConnectionError(f"try {tries['flaky']}")
        return "at last"

    @function(on="a/b", retries=0)
    async def f(ctx: Context) -> str:
        return await ctx.step.with_options(retries=5).run("flaky", flaky)

    lab = Lab(store, f)
    async with lab.working():
        [run_id] = await lab.send("a/b")
        for n in (1, 2):
            await lab.until(lambda n=n: tries["flaky"] == n)
            await lab.parked(run_id, "retry")
            lab.pass_time(HOUR)
        run = await lab.ended(run_id)
    assert run["output"] == "at last"
    assert run["attempts"] == 1, "the tries of a step are not attempts of the run"
    assert [row["number"] for row in store.reads.step_attempts(run_id)["flaky"]] == [1, 2]


@in_loop
async def test_a_step_that_failed_for_good_raises_the_same_error_each_time_and_can_be_compensated(store):
    done, seen = Counter(), set()

    async def charge() -> None:
        done["charge"] += 1
        raise NonRetriableError("card declined")

    async def refund() -> str:
        done["refund"] += 1
        return "refunded"

    @function(on="a/b")
    async def f(ctx: Context) -> str:
        try:
            await ctx.step.run("charge", charge)
        except StepError as error:
            seen.add((error.step, error.type, error.reason))
            result = await ctx.step.run("refund", refund)
            await ctx.step.sleep("later", hours=1)
            return result
        return "?"

    lab = Lab(store, f)
    async with lab.working():
        [run_id] = await lab.send("a/b")
        await lab.parked(run_id, "sleep")
        lab.pass_time(HOUR)
        run = await lab.ended(run_id)
    assert run["output"] == "refunded"
    assert done == {"charge": 1, "refund": 1}
    assert seen == {("charge", "NonRetriableError", "card declined")}


@in_loop
async def test_the_same_id_in_a_loop_is_numbered(store):
    def double(n: int) -> int:
        return 2 * n

    @function(on="a/b")
    async def f(ctx: Context) -> list:
        return [await ctx.step.run("double", double, n) for n in range(3)]

    lab = Lab(store, f)
    async with lab.working():
        [run_id] = await lab.send("a/b")
        assert (await lab.ended(run_id))["output"] == [0, 2, 4]
    assert list(lab.steps(run_id)) == ["double", "double#2", "double#3"]


@in_loop
async def test_branches_are_remembered_and_retried_each_on_its_own(store):
    done = Counter()

    async def work(name: str) -> str:
        done[name] += 1
        if name == "b" and done["b"] == 1:
            raise ValueError("b is flaky")
        return name

    async def branch(ctx: Context, name: str) -> str:
        found = await ctx.step.run(name, work, name)
        await ctx.step.sleep(f"{name} sleeps", hours={"a": 1, "b": 2, "c": 3}[name])
        return found + await ctx.step.run(f"{name} again", work, f"{name} again")

    @function(on="a/b", retries=3)
    async def f(ctx: Context) -> list:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(branch(ctx, name)) for name in "ab"]
            gathered = await asyncio.gather(branch(ctx, "c"))
        return [*(task.result() for task in tasks), *gathered]

    lab = Lab(store, f)
    async with lab.working():
        [run_id] = await lab.send("a/b")
        await lab.until(lambda: done["a"] and done["b"] and done["c"])
        for _ in range(8):
            await asyncio.sleep(0.05)
            lab.pass_time(HOUR)
        run = await lab.ended(run_id)
    assert run["output"] == ["aa again", "bb again", "cc again"]
    assert done == {"a": 1, "b": 2, "c": 1, "a again": 1, "b again": 1, "c again": 1}


@in_loop
async def test_a_short_branch_goes_on_while_another_sleeps(store):
    done = []

    async def work() -> None:
        done.append("worked")

    async def long(ctx: Context) -> None:
        await ctx.step.sleep("long", hours=5)

    async def short(ctx: Context) -> None:
        await ctx.step.sleep("short", seconds=0.05)
        await ctx.step.run("work", work)

    @function(on="a/b")
    async def f(ctx: Context) -> None:
        await asyncio.gather(long(ctx), short(ctx))

    lab = Lab(store, f)
    async with lab.working():
        [run_id] = await lab.send("a/b")
        await lab.until(lambda: done)
        await lab.parked(run_id, "sleep")
    assert lab.steps(run_id) == {"long": "waiting", "short": "waiting", "work": "succeeded"}


async def fails() -> None:
    raise NonRetriableError("no")


async def broken(ctx: Context, after: float) -> None:
    if after:
        await ctx.step.sleep("short", seconds=after)
    await ctx.step.run("fails", fails)


async def by_gather(ctx: Context, after: float) -> None:
    await asyncio.gather(ctx.step.sleep("night", hours=1), broken(ctx, after))


async def by_nested_gathers(ctx: Context, after: float) -> None:
    deep: Awaitable[object] = broken(ctx, after)
    for _ in range(5):
        deep = asyncio.gather(deep)
    await asyncio.gather(ctx.step.sleep("night", hours=1), asyncio.shield(deep))


async def by_task_group(ctx: Context, after: float) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(ctx.step.sleep("night", hours=1))
        group.create_task(broken(ctx, after))


async def by_wait(ctx: Context, after: float) -> None:
    tasks = [asyncio.create_task(ctx.step.sleep("night", hours=1)), asyncio.create_task(broken(ctx, after))]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    await done.pop()


async def by_as_completed(ctx: Context, after: float) -> None:
    for first in asyncio.as_completed([ctx.step.sleep("night", hours=1), broken(ctx, after)]):
        await first


@pytest.mark.parametrize("after", [0, 0.05])
@pytest.mark.parametrize("branches", [by_gather, by_nested_gathers, by_task_group, by_wait, by_as_completed])
@in_loop
async def test_how_one_branch_ended_is_known_at_once_though_another_sleeps(store, branches, after):
    @function(on="a/b", retries=0)
    async def f(ctx: Context) -> str:
        try:
            await branches(ctx, after)
        except* StepError:
            pass
        else:
            return "no"
        return await ctx.step.run("compensated", str, "yes")

    lab = Lab(store, f)
    async with lab.working():
        [run_id] = await lab.send("a/b")
        assert (await lab.ended(run_id))["output"] == "yes"


@in_loop
async def test_a_map_runs_at_most_so_many_at_a_time_and_keeps_the_order(store):
    running, most = 0, 0

    async def work(n: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return n * n

    @function(on="a/b")
    async def f(ctx: Context) -> list:
        return await ctx.step.map("square", work, range(10), limit=3)

    lab = Lab(store, f)
    async with lab.working():
        [run_id] = await lab.send("a/b")
        assert (await lab.ended(run_id))["output"] == [n * n for n in range(10)]
    assert most == 3


@in_loop
async def test_a_sleeping_run_holds_no_slot(store):
    @function(on="a/b")
    async def f(ctx: Context) -> str:
        await ctx.step.sleep("night", hours=8)
        return "awake"

    lab = Lab(store, f)
    async with lab.working(concurrency=1):
        runs = [(await lab.send("a/b"))[0] for _ in range(5)]
        for run_id in runs:
            await lab.parked(run_id, "sleep")
        lab.pass_time(8 * HOUR)
        assert [(await lab.ended(run_id))["output"] for run_id in runs] == ["awake"] * 5


@in_loop
async def test_a_function_that_catches_everything_is_parked_all_the_same(store):
    cleaned = []

    async def clean() -> None:
        cleaned.append(True)

    @function(on="a/b")
    async def greedy(ctx: Context) -> str:
        try:
            await ctx.step.sleep("nap", hours=1)
        except BaseException:
            return "swallowed"
        finally:
            await ctx.step.run("clean", clean)
        return "slept"

    @function(on="a/b")
    def greedy_sync(ctx: SyncContext) -> str:
        try:
            ctx.step.sleep("nap", hours=1)
        except BaseException:
            return "swallowed"
        return "slept"

    lab = Lab(store, greedy, greedy_sync)
    async with lab.working():
        runs = await lab.send("a/b")
        for run_id in runs:
            await lab.parked(run_id, "sleep")
        assert not cleaned, "a `finally` of a run that is parked must not do a step"
        lab.pass_time(HOUR)
        assert [(await lab.ended(run_id))["output"] for run_id in runs] == ["slept", "slept"]
    assert cleaned == [True]


@in_loop
async def test_plain_functions_have_the_same_steps(store):
    done = Counter()

    def work(name: str) -> str:
        done[name] += 1
        return name

    @function(on="a/b")
    def f(ctx: SyncContext) -> list:
        first = ctx.step.run("first", work, "first")

        def branch(name: str, hours: int) -> str:
            ctx.step.sleep(f"{name} sleeps", hours=hours)
            return ctx.step.run(name, work, name)

        rest = ctx.step.parallel(lambda: branch("x", 1), lambda: branch("y", 2), lambda: ctx.step.run("z", work, "z"))
        return [first, *rest, *ctx.step.map("m", work, ["p", "q"])]

    lab = Lab(store, f)
    async with lab.working():
        [run_id] = await lab.send("a/b")
        await lab.parked(run_id, "sleep")
        lab.pass_time(HOUR)
        await lab.until(lambda: done["x"])
        await lab.parked(run_id, "sleep")
        lab.pass_time(HOUR)
        run = await lab.ended(run_id)
    assert run["output"] == ["first", "x", "y", "z", "p", "q"]
    assert set(done.values()) == {1}


@in_loop
async def test_what_a_step_sends_is_sent_once_and_triggers_functions(store):
    @function(on="a/b", retries=1)
    async def f(ctx: Context) -> list:
        ids = await ctx.step.send_event("tell", [new_event("c/d", {"n": n}) for n in range(2)])
        if ctx.attempt == 1:
            raise RetryAfterError(HOUR, "after it was sent")
        return ids

    @function(on="c/d")
    async def g(ctx: Context) -> int:
        return ctx.event.data["n"]

    lab = Lab(store, f, g)
    async with lab.working():
        [run_id] = await lab.send("a/b")
        await lab.parked(run_id, "retry")
        lab.pass_time(HOUR)
        run = await lab.ended(run_id)
        await lab.until(lambda: {one["output"] for one in lab.runs("g")} == {0, 1})
    assert {one["event_id"]: one["output"] for one in lab.runs("g")} == dict(zip(run["output"], (0, 1), strict=True))


@in_loop
async def test_a_step_in_a_step_and_a_wrong_id_fail_at_once_and_say_so(store):
    @function(on="a/b")
    async def nested(ctx: Context) -> None:
        async def outer() -> None:
            await ctx.step.run("inner", outer)

        await ctx.step.run("outer", outer)

    @function(on="a/b")
    async def wrong(ctx: Context) -> None:
        await ctx.step.run("a#2", len, "x")

    lab = Lab(store, nested, wrong)
    async with lab.working():
        errors = [(await lab.ended(run_id))["error"]["message"] for run_id in await lab.send("a/b")]
    assert "step 'inner' is inside of step 'outer'" in errors[0]
    assert "without `#`" in errors[1]


@in_loop
async def test_g10_results_that_are_too_large_are_refused_with_the_limit(store):
    def big(n: int) -> str:
        return "x" * n

    @function(on="a/b")
    async def one(ctx: Context) -> None:
        await ctx.step.run("big", big, 2000)

    @function(on="a/b")
    async def many(ctx: Context) -> None:
        await ctx.step.map("big", big, [900] * 4)

    lab = Lab(store, one, many)
    async with lab.working(max_step_bytes=1000, max_run_bytes=3000):
        errors = [(await lab.ended(run_id))["error"] for run_id in await lab.send("a/b")]
    assert "a step keeps at most 1,000" in errors[0]["message"]
    assert "a run keeps at most 3,000" in errors[1]["message"]


@in_loop
async def test_progress_is_shown_while_the_run_goes_on_and_never_written_per_call(store):
    go_on = asyncio.Event()

    @function(on="a/b")
    async def f(ctx: Context) -> None:
        for n in range(10_000):
            ctx.progress(n, 10_000, "half way")
        await go_on.wait()
        ctx.progress(10_000, 10_000, "done")

    lab = Lab(store, f)
    async with lab.working():
        [run_id] = await lab.send("a/b")
        await lab.until(lambda: store.reads.run(run_id)["done"] == 9_999)
        go_on.set()
        await lab.ended(run_id)
        await lab.until(lambda: store.reads.run(run_id)["message"] == "done")
