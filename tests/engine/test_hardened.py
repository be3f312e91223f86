"""What an attacker tried on waits and steps."""

from __future__ import annotations

import threading

import pytest

from gateway import Context, StepError, SyncContext, function
from gateway.core.waits import on_expression
from gateway.ids import new_id
from gateway.store.inbox import Accept, AcceptMany, EventRecord
from tests.engine.lab import Lab, in_loop

DEEP = b'{"id": %b1%b}' % (b"[" * 700, b"]" * 700)


def accept(lab: Lab, name: str, data: bytes) -> Accept:
    event_id, now = new_id("evt"), lab.clock()
    return Accept(EventRecord(event_id, name, "test", event_id, now, now, b"{}", data=data), ())


@in_loop
async def test_an_event_so_deep_that_it_matches_nothing_is_accepted_and_holds_up_no_other(store):
    @function(on="a/b")
    async def f(ctx: Context) -> object:
        found = await ctx.step.wait_for_event("w", "c/d", match="data.id", timeout=3600)
        return found and found.data["id"]

    lab = Lab(store, f)
    await lab.commit(accept(lab, "c/d", DEEP))
    async with lab.working():
        [run_id] = await lab.send("a/b", {"id": 7})
        await lab.parked(run_id, "event")
        await lab.until(lambda: store.database.read("select 1 from wait_paths where settled = 1"))
        await lab.commit(accept(lab, "c/d", DEEP))
        await lab.send("c/d", {"id": 7})
        assert (await lab.ended(run_id))["output"] == 7


@in_loop
async def test_a_wait_finds_its_event_behind_any_number_of_others(store):
    go_on = threading.Event()

    @function(on="a/b")
    def f(ctx: SyncContext) -> object:
        go_on.wait(60)
        found = ctx.step.wait_for_event("w", "c/d", match="data.id", timeout=3600)
        return found and found.data["says"]

    lab = Lab(store, f)
    async with lab.working():
        [run_id] = await lab.send("a/b", {"id": -1})
        await lab.send("c/d", {"id": -1, "says": "first"})
        await lab.commit(AcceptMany(tuple(accept(lab, "c/d", b'{"id": %d, "says": "no"}' % n) for n in range(2500))))
        go_on.set()
        assert (await lab.ended(run_id))["output"] == "first"


@in_loop
async def test_g10_an_event_that_is_more_than_a_step_may_keep_fails_the_wait_and_says_so(store):
    @function(on="a/b")
    async def f(ctx: Context) -> str:
        try:
            await ctx.step.wait_for_event("w", "c/d", match="data.id", timeout=3600)
        except StepError as error:
            return error.reason
        return ""

    lab = Lab(store, f)
    async with lab.working(max_step_bytes=1000):
        [run_id] = await lab.send("a/b", {"id": 1})
        await lab.parked(run_id, "event")
        await lab.send("c/d", {"id": 1, "pad": "x" * 2000})
        assert "a step keeps at most 1,000" in (await lab.ended(run_id))["output"]


@in_loop
async def test_g9_steps_that_block_their_threads_hold_up_no_wait_and_no_other_step(store):
    go_on = threading.Event()

    @function(on="a/block")
    async def blocking(ctx: Context) -> None:
        await ctx.step.run("block", go_on.wait, 60)

    @function(on=())
    async def child(ctx: Context) -> str:
        return await ctx.step.run("say", str, "said")

    @function(on="a/b")
    async def parent(ctx: Context) -> str:
        return await ctx.step.invoke("child", child)

    lab = Lab(store, blocking, child, parent)
    async with lab.working():
        for _ in range(60):
            await lab.send("a/block")
        [run_id] = await lab.send("a/b")
        assert (await lab.ended(run_id))["output"] == "said"
        go_on.set()
        await lab.until(lambda: store.count("queue") == 0)


@in_loop
async def test_an_error_that_cannot_be_shown_ends_its_run_all_the_same(store):
    class Evil(BaseException):
        def __str__(self) -> str:
            raise ValueError("not even this")

    @function(on="a/b", retries=0)
    async def f(ctx: Context) -> None:
        raise Evil

    lab = Lab(store, f)
    async with lab.working():
        [run_id] = await lab.send("a/b")
        assert (await lab.ended(run_id))["error"]["type"] == "Evil"


@in_loop
async def test_what_a_step_sends_that_was_there_before_is_known_by_the_first_id(store):
    from gateway import new_event

    @function(on="a/b")
    async def f(ctx: Context) -> list:
        return await ctx.step.send_event("tell", [new_event("c/d", n, id="the same") for n in range(2)])

    lab = Lab(store, f)
    async with lab.working():
        first, second = [(await lab.ended((await lab.send("a/b"))[0]))["output"] for _ in range(2)]
    assert first == second
    assert len({*first}) == 1


@pytest.mark.parametrize(
    ("expression", "path"),
    [
        ("async.data.id == event.data.id && async.data.n > 1", "data.id"),
        ("(async.data.force == true) || (event.data.x == 1) && async.data.id == event.data.id", ""),
        ("!(async.data.n == 1 && async.data.id == event.data.id)", ""),
        ("async.data.n == 1 ? async.data.id == event.data.id : true", ""),
        ("async.data.s == 'a || b' && event.data.id == async.data.id", "data.id"),
        ('async.data.s == "x\\" && async.data.id == event.data.id && \\"y"', ""),
    ],
)
def test_only_an_equality_that_must_hold_is_lifted_out_of_a_condition(expression, path):
    assert on_expression("c/d", expression, {"name": "a/b", "data": {"id": 1, "x": 2}}).path == path
