"""What the kit tells of a run is what a worker with a database makes of it: both are tried with the same functions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway import (
    CancelOn,
    Context,
    Event,
    NonRetriableError,
    RetryAfterError,
    StepError,
    SyncContext,
    Timeouts,
    codec,
    function,
    new_event,
)
from gateway.core.waits import signal_hash
from gateway.sdk.function import Function
from gateway.store.waits import SendSignal
from gateway.testing import after, run
from tests.engine.lab import Lab

HOUR = 3600
tries: dict[str, int] = {}


def flaky(name: str) -> str:
    tries[name] = tries.get(name, 0) + 1
    if tries[name] < 3:
        raise ValueError(f"try {tries[name]}")
    return name


def never() -> str:
    raise KeyError("never")


@function(retries=1)
async def child(ctx: Context[Event]) -> Any:
    await ctx.step.sleep("nap", hours=1)
    if ctx.event.data == "bad":
        raise NonRetriableError("bad data")
    return [ctx.event.data, ctx.event.name]


@function(on="p/steps", retries=3)
async def steps(ctx: Context[Event]) -> Any:
    first = await ctx.step.run("flaky", flaky, "steps")
    try:
        await ctx.step.with_options(retries=1).run("never", never)
    except StepError as error:
        failed = [error.step, error.type, error.reason]
    if ctx.attempt == 1:
        raise RetryAfterError(HOUR)
    many = await ctx.step.map("many", str.upper, ["a", "b"])
    return [first, failed, many, [await ctx.step.run("loop", str, n) for n in range(2)], ctx.attempt]


@function(on="p/side")
async def side(ctx: Context[Event]) -> Any:
    async def branch(name: str, hours: int) -> str:
        await ctx.step.sleep(f"sleep-{name}", hours=hours)
        return await ctx.step.run(name, str.upper, name)

    return await asyncio.gather(branch("a", 2), branch("b", 1))


@function(on="p/plain")
def plain(ctx: SyncContext[Event]) -> Any:
    ctx.step.sleep("rest", hours=1)
    both = ctx.step.parallel(lambda: ctx.step.run("x", str.upper, "x"), lambda: ctx.step.invoke("kid", child, 1))
    return [both, ctx.step.wait_for_event("none", "p/never", timeout=HOUR)]


@function(on="p/children")
async def children(ctx: Context[Event]) -> Any:
    good = await ctx.step.invoke("good", child, {"n": 1})
    try:
        await ctx.step.invoke("late", child, 2, timeout=60)
    except StepError as error:
        late = error.type
    try:
        await ctx.step.invoke("bad", child, "bad")
    except StepError as error:
        return [good, late, error.type, error.reason.partition("of ")[2]]


@function(on="p/waits")
async def waits(ctx: Context[Event]) -> Any:
    await ctx.step.send_event("send", [new_event("p/own", {"id": 1}), new_event("p/own", {"id": 2})])
    own = await ctx.step.wait_for_event("own", "p/own", if_="async.data.id == 2")
    matched = await ctx.step.wait_for_event("matched", "p/given", match="data.id")
    signal = await ctx.step.wait_for_signal("signal", "go")
    return [own and own.data, matched and matched.data, signal]


@function(on="p/cancelled", cancel_on=CancelOn("p/cancel", match="data.id"))
async def cancelled(ctx: Context[Event]) -> None:
    await ctx.step.sleep("long", hours=10)


@function(on="p/limited", timeouts=Timeouts(finish=HOUR))
async def limited(ctx: Context[Event]) -> None:
    await ctx.step.sleep("long", hours=10)


async def handler(ctx: Context[Event]) -> Any:
    return [ctx.failure and ctx.failure.message, ctx.event.data, await ctx.step.run("tell", str.upper, "told")]


@function(on="p/fails", retries=1, on_failure=handler)
async def fails(ctx: Context[Event]) -> None:
    raise ValueError(f"attempt {ctx.attempt}")


# What arrives while they run: events with their hour, and signals.
ARRIVALS: dict[str, Any] = {"waits": (new_event("p/given", {"id": 1}), 2), "cancelled": (new_event("p/cancel", {"id": 1}), 2)}
SIGNALS = {"waits": ("go", {"by": "Ada"}, 3)}


async def on_a_worker(lab: Lab, tested: Function[Any]) -> dict[str, dict[str, Any]]:
    """Run an event through a database, hour by hour; what is stored of every run, by function."""
    async with lab.working():
        [run_id] = await lab.send(f"p/{tested.id}", {"id": 1})
        for hour in range(1, 6):
            await settled(lab)
            if tested.id in ARRIVALS and ARRIVALS[tested.id][1] == hour:
                new = ARRIVALS[tested.id][0]
                await lab.send(new.name, {"id": 1})
            if tested.id in SIGNALS and SIGNALS[tested.id][2] == hour:
                name, data, _ = SIGNALS[tested.id]
                await lab.commit(SendSignal(signal_hash(name), codec.dumps(data), lab.clock()))
            await settled(lab)
            lab.pass_time(HOUR)
        await settled(lab)
        await lab.ended(run_id)
    found = {}
    for row in lab.store.database.read("select id, function_id from runs order by id"):
        stored, kept = lab.run(row["id"]), lab.store.reads.steps(row["id"])
        attempts = lab.store.reads.attempts([row["id"]])
        found.setdefault(row["function_id"], []).append(
            (
                stored["status"],
                stored["output"],
                (stored["error"] or {}).get("type"),
                sorted((one["key"], one["kind"], one["attempts"]) for one in kept),
                [(one["number"], one["outcome"]) for one in attempts],
            )
        )
    return found


async def settled(lab: Lab) -> None:
    """Until nothing is due, nothing runs, and nothing is left to be told or matched."""

    def quiet() -> bool:
        now = lab.clock()
        due = lab.store.database.read("select count(*) as n from queue where due_at <= ? or worker_id is not null", [now])
        left = lab.store.database.read(
            "select (select count(*) from endings) + (select count(*) from arrivals where seen = 0)"
            " + (select count(*) from wait_paths where settled = 0) as n"
        )
        return due[0]["n"] == 0 and left[0]["n"] == 0

    for _ in range(3):
        await lab.until(quiet)
        await asyncio.sleep(0.03)  # what was just told may have made something due


def in_memory(tested: Function[Any]) -> dict[str, list[Any]]:
    given: dict[str, Any] = {"functions": [child]}
    if tested.id in ARRIVALS:
        new, hour = ARRIVALS[tested.id]
        given["events"] = [after(new, hours=hour)]
    if tested.id in SIGNALS:
        name, data, hour = SIGNALS[tested.id]
        given["signals"] = {name: after(data, hours=hour)}
    trace = run(tested, {"id": 1}, **given)
    found: dict[str, list[Any]] = {}
    for one in (trace, *trace.runs):
        found.setdefault(one.function_id, []).append(
            (
                one.status,
                one.result,
                one.error.type if one.error else None,
                sorted((step.id, step.kind, step.attempts) for step in one.steps),
                [(attempt.number, attempt.outcome) for attempt in one.attempts],
            )
        )
    return found


@pytest.mark.parametrize("tested", [steps, side, plain, children, waits, cancelled, limited, fails], ids=lambda one: one.id)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_run_in_memory_is_as_one_on_a_worker(store, tested):
    lab = Lab(store, tested, child)
    tries.clear()
    stored = asyncio.run(on_a_worker(lab, tested))
    tries.clear()
    assert in_memory(tested) == stored
