"""Runs that are retried by hand: what they remember holds, and what follows from their ends is done for each end (G5)."""

from __future__ import annotations

from collections import Counter

from gateway import Context, NonRetriableError, function
from gateway.store.admin import CancelRun, RetryRun
from tests.engine.lab import Lab, in_loop


@in_loop
async def test_a_run_retried_by_hand_invokes_anew_what_has_failed(store):
    children = Counter()

    @function()
    async def child(ctx: Context) -> str:
        children["child"] += 1
        if children["child"] == 1:
            raise NonRetriableError("not this time")
        return "done"

    @function(on="a/b", retries=0)
    async def parent(ctx: Context) -> str:
        return await ctx.step.invoke("child", child)

    lab = Lab(store, parent, child)
    async with lab.working():
        [run_id] = await lab.send("a/b")
        assert (await lab.ended(run_id))["status"] == "failed"
        assert await lab.commit(RetryRun(run_id, 1, lab.clock()))
        run = await lab.ended(run_id)
    assert (run["status"], run["output"]) == ("succeeded", "done")
    assert [one["status"] for one in lab.runs("child")] == ["failed", "succeeded"]


@in_loop
async def test_a_run_that_fails_again_after_a_retry_by_hand_is_handled_again_and_holds_up_nobody(store):
    handled = []

    def tell(ctx: Context) -> None:
        handled.append(ctx.failed_run_id)

    @function(on="a/b", retries=0, on_failure=tell)
    async def f(ctx: Context) -> None:
        raise ValueError("as ever")

    lab = Lab(store, f)
    async with lab.working():
        [run_id] = await lab.send("a/b")
        await lab.until(lambda: len(handled) == 1)
        assert await lab.commit(RetryRun(run_id, 1, lab.clock()))
        await lab.until(lambda: len(handled) == 2)
        [other] = await lab.send("a/b")
        await lab.until(lambda: len(handled) == 3)
    assert handled == [run_id, run_id, other]
    assert store.count("endings") == 0


@in_loop
async def test_the_end_of_a_child_that_was_given_up_does_not_end_the_wait_for_its_successor(store):
    @function()
    async def child(ctx: Context) -> str:
        await ctx.step.sleep("long", hours=2 if ctx.event.data == "first" else 20)
        return ctx.event.data

    @function(on="a/b", retries=0)
    async def parent(ctx: Context) -> str:
        which, hours = ("second", 100) if lab.runs("child") else ("first", 1)
        return await ctx.step.invoke("child", child, which, timeout=3600 * hours)

    lab = Lab(store, parent, child)
    async with lab.working():
        [run_id] = await lab.send("a/b")
        await lab.parked(run_id, "invoke")
        [first] = await lab.until(lambda: lab.runs("child"))
        await lab.parked(first["id"], "sleep")
        lab.pass_time(3601)
        assert "has not ended in time" in (await lab.ended(run_id))["error"]["message"]
        await lab.until(lambda: store.count("endings") == 0)
        assert await lab.commit(RetryRun(run_id, 1, lab.clock()))
        await lab.until(lambda: len(lab.runs("child")) == 2)
        await lab.parked(run_id, "invoke")
        first, second = lab.runs("child")
        lab.pass_time(3600)
        await lab.ended(first["id"])
        await lab.until(lambda: store.count("endings") == 0)
        assert lab.steps(run_id) == {"child": "waiting"}, "that was the end of another run"
        assert await lab.commit(CancelRun(second["id"], lab.clock()))
        run = await lab.ended(run_id)
    assert "it was cancelled" in run["error"]["message"]
