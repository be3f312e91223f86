"""What a strict type checker knows of steps; `scripts/check` looks at this file, and nothing runs it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, TypedDict, assert_type

from gateway import Context, Event, SyncContext, function, new_event


@dataclass
class Order:
    id: int


class Item(TypedDict):
    sku: str


class Placed(Event[Order], name="order/placed"): ...


class Shipped(Event[Item], name="order/shipped"): ...


async def load(id: int, *, deep: bool = False) -> Order:
    return Order(id)


def count(text: str) -> int:
    return len(text)


@function(on=Placed)
async def pack(ctx: Context[Placed]) -> Item:
    return {"sku": str(ctx.event.data.id)}


@function(on=Placed)
def tally(ctx: SyncContext[Placed]) -> float:
    return 1.5


@function(on=Placed)
async def all_of_it(ctx: Context[Placed]) -> None:
    assert_type(ctx.event.data, Order)
    assert_type(await ctx.step.run("load", load, 1, deep=True), Order)
    assert_type(await ctx.step.run("count", count, "x"), int)
    assert_type(await ctx.step.with_options(retries=1).run("load", load, 1), Order)
    assert_type(await ctx.step.map("map", load, [1, 2]), list[Order])
    assert_type(await ctx.step.map("map", count, ["a"]), list[int])
    assert_type(await ctx.step.invoke("pack", pack, Order(1)), Item)
    assert_type(await ctx.step.invoke("tally", tally, Order(1)), float)
    shipped = await ctx.step.wait_for_event("shipped", Shipped, match="data.id", timeout=60)
    assert_type(shipped, Shipped | None)
    if shipped is not None:
        assert_type(shipped.data, Item)
    assert_type(await ctx.step.send_event("send", [Shipped.new({"sku": "x"}), new_event("a/b")]), list[str])
    found = await asyncio.gather(ctx.step.run("a", load, 1), ctx.step.run("b", count, "x"))
    assert_type(found, tuple[Order, int])


@function(on=Placed)
def all_of_it_in_a_thread(ctx: SyncContext[Placed]) -> None:
    assert_type(ctx.step.run("count", count, "x"), int)
    assert_type(ctx.step.map("map", count, ["a"]), list[int])
    assert_type(ctx.step.run("load", load, 1, deep=True), Order)
    assert_type(ctx.step.map("map", load, [1, 2]), list[Order])
    assert_type(ctx.step.parallel(lambda: ctx.step.run("a", load, 1), lambda: ctx.step.run("b", load, 2)), list[Order])
    assert_type(ctx.step.invoke("pack", pack, Order(1)), Item)
    assert_type(ctx.step.wait_for_event("shipped", Shipped), Shipped | None)
    assert_type(ctx.step.parallel(lambda: ctx.step.run("a", count, "x"), lambda: ctx.step.run("b", count, "y")), list[int])


@function(on="any/*")
async def any_event(ctx: Context[Event]) -> None:
    assert_type(ctx.event, Event[Any])
    assert_type(await ctx.step.wait_for_event("later", "any/other"), Event[Any] | None)


@function(on="any/*")
def any_event_in_a_thread(ctx: SyncContext) -> None:
    assert_type(ctx.event, Event[Any])
