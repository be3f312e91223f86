"""Runs of 1 to 20 steps of every kind, made up at random, and what each must come to.

What their steps do is a line in a file that is opened with O_APPEND: so executions are counted across processes and deaths.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from gateway import CancelOn, Context, NonRetriableError, RetryAfterError, StepError, SyncContext, function, new_event

Op = dict[str, Any]
TRIES = {"flaky": 3}  # how often these are executed when nobody dies; all others once
SOON = 0.005
MOST_STEPS = 20
PLAIN = ("run", "run", "async_run", "flaky", "doomed", "sleep", "event", "event", "picky", "lost", "signal", "invoke", "failing", "send")


class Effects:
    """The file beside the database."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def add(self, what: str) -> int:
        """Add a line; how often it is there by now."""
        os.write(self._file, f"{what}\n".encode())
        return self.path.read_text().splitlines().count(what)


effects: Effects | None = None  # of this process


def begin(path: Path) -> None:
    """Have this process write its effects there."""
    global effects
    effects = Effects(path)


def work(run_id: str, key: str, kind: str = "run") -> str:
    """What a step does."""
    assert effects is not None
    tries = effects.add(f"{run_id} {key}")
    if kind == "doomed":
        raise NonRetriableError("it cannot be done")
    if tries < TRIES.get(kind, 1):
        raise RetryAfterError(SOON)
    return key


async def work_async(run_id: str, key: str) -> str:
    return work(run_id, key)


@dataclass
class Player:
    """Does what a program says, with the steps of either kind of function."""

    ctx: Any
    steps: Any
    side_by_side: Callable[[Sequence[Coroutine[Any, Any, Any]]], Coroutine[Any, Any, list[Any]]]

    async def play(self, ops: Sequence[Op]) -> list[Any]:
        return [await self._do(op) for op in ops]

    async def _do(self, op: Op) -> Any:
        kind, key, run_id = op["kind"], op["id"], self.ctx.run_id
        match kind:
            case "run" | "flaky":
                return await self.steps.run(key, work, run_id, key, kind)
            case "async_run":
                return await self.steps.run(key, work_async, run_id, key)
            case "doomed":
                return await _caught(self.steps.run(key, work, run_id, key, kind))
            case "sleep":
                return await self.steps.sleep(key, seconds=op["seconds"])
            case "event":
                return (await self.steps.wait_for_event(key, op["name"], match=f"data.waits.{key}")).data["says"]
            case "picky":
                if_ = f"async.data.waits.{key} == event.data.waits.{key} && async.data.good"
                return (await self.steps.wait_for_event(key, op["name"], if_=if_)).data["says"]
            case "lost":
                return await self.steps.wait_for_event(key, "crash/never", timeout=SOON)
            case "signal":
                return await self.steps.wait_for_signal(key, f"{run_id} {key}")
            case "invoke":
                return await self.steps.invoke(key, child, {"says": key, "fails": False})
            case "failing":
                return await _caught(self.steps.invoke(key, child, {"says": key, "fails": True}))
            case "send":
                sent = [new_event("crash/sent", f"{run_id} {key} {n}") for n in range(op["count"])]
                return len(await self.steps.send_event(key, sent))
            case "map":
                return await self.steps.map(key, partial(_mapped, run_id, key), list(range(op["count"])), limit=2)
            case "gather":
                return await self.side_by_side([self.play(branch) for branch in op["branches"]])
            case "stumble":
                assert effects is not None
                if effects.add(f"{run_id} {key} itself") == 1:
                    raise RetryAfterError(SOON)
                return "got up"
            case _:
                raise NonRetriableError("as it was meant to")


def _mapped(run_id: str, key: str, n: int) -> str:
    return work(run_id, f"{key}/{n}")


async def _caught(step: Coroutine[Any, Any, Any]) -> str:
    try:
        return await step
    except StepError as error:
        return f"caught {error.type}"


def expected(op: Op) -> Any:
    """What an operation must come to."""
    key = op["id"]
    match op["kind"]:
        case "gather":
            return [[expected(one) for one in branch] for branch in op["branches"]]
        case "map":
            return [f"{key}/{n}" for n in range(op["count"])]
        case kind:
            return {
                "doomed": "caught NonRetriableError",
                "failing": "caught NonRetriableError",
                "sleep": None,
                "lost": None,
                "send": op.get("count"),
                "stumble": "got up",
            }.get(kind, key)


class _Awaitable:
    """The steps of a plain function, to be awaited: they never are."""

    def __init__(self, steps: Any) -> None:
        self._steps = steps

    def __getattr__(self, name: str) -> Any:
        async def call(*arguments: Any, **options: Any) -> Any:
            return getattr(self._steps, name)(*arguments, **options)

        return call


def _driven(never_waits: Coroutine[Any, Any, Any]) -> Any:
    try:
        never_waits.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waited")


def told(ctx: Context) -> None:
    """The handler of failures."""
    assert effects is not None
    effects.add(f"{ctx.failed_run_id} handled")


@function(on="crash/mixed", retries=100, on_failure=told)
async def mixed(ctx: Context) -> list:
    async def side_by_side(branches: Sequence[Coroutine[Any, Any, Any]]) -> list:
        return list(await asyncio.gather(*branches))

    return await Player(ctx, ctx.step, side_by_side).play(ctx.event.data["ops"])


@function(on="crash/mixed_sync", retries=100, on_failure=told)
def mixed_sync(ctx: SyncContext) -> list:
    async def side_by_side(branches: Sequence[Coroutine[Any, Any, Any]]) -> list:
        return ctx.step.parallel(*(partial(_driven, branch) for branch in branches))

    return _driven(Player(ctx, _Awaitable(ctx.step), side_by_side).play(ctx.event.data["ops"]))


@function(on="crash/patient", retries=100, cancel_on=CancelOn("crash/cancelled", match="data.label"))
async def patient(ctx: Context) -> None:
    await ctx.step.run("first", work, ctx.run_id, "first")
    await ctx.step.wait_for_event("for ever", "crash/never")


@function(retries=100)
async def child(ctx: Context) -> str:
    await ctx.step.run("work", work, ctx.run_id, "work")
    await ctx.step.sleep("a bit", seconds=SOON)
    if ctx.event.data["fails"]:
        raise NonRetriableError("as it was told")
    return ctx.event.data["says"]


@function(on="crash/sent", retries=100)
def leaf(ctx: SyncContext) -> str:
    ctx.step.run("work", work, ctx.run_id, "work")
    return ctx.event.data


FUNCTIONS = (mixed, mixed_sync, patient, child, leaf)


def all_functions() -> Iterator[Any]:
    """The functions, and their handlers of failures."""
    for one in FUNCTIONS:
        yield from (each for each in (one, one.failure) if each is not None)


@dataclass(frozen=True)
class Program:
    """One run to be: what triggers it, with which data, and what it must end as."""

    label: str
    trigger: str
    ops: tuple[Op, ...] = field(default=())

    @property
    def outcome(self) -> str:
        if self.trigger == "crash/patient":
            return "cancelled"
        return "failed" if any(op["kind"] == "fail" for op in self.ops) else "succeeded"

    @property
    def output(self) -> Any:
        return [expected(op) for op in self.ops] if self.outcome == "succeeded" else None

    @property
    def data(self) -> Any:
        waits = {op["id"]: f"{self.label} {op['id']}" for op in flat(self.ops) if op["kind"] in ("event", "picky")}
        return {"label": self.label, "ops": list(self.ops), "waits": waits}

    def effects(self) -> Iterator[tuple[str, int]]:
        """Each step that does something, with how often it is executed when nobody dies."""
        if self.trigger == "crash/patient":
            return
        for op in flat(self.ops):
            if op["kind"] in ("run", "async_run", "flaky", "doomed"):
                yield op["id"], TRIES.get(op["kind"], 1)
            elif op["kind"] == "map":
                yield from ((f"{op['id']}/{n}", 1) for n in range(op["count"]))


def flat(ops: Sequence[Op]) -> Iterator[Op]:
    """Every operation, those of branches included."""
    for op in ops:
        yield op
        for branch in op.get("branches", ()):
            yield from flat(branch)


def make_up(chance: random.Random, label: str) -> Program:
    """A program at random."""
    trigger = chance.choice(("crash/mixed", "crash/mixed", "crash/mixed_sync", "crash/mixed_sync", "crash/patient"))
    ops: list[Op] = []
    left, ids = chance.randint(1, MOST_STEPS), (f"s{n}" for n in range(1000))
    while left > 0:
        kind = chance.choice((*PLAIN, "gather", "map", "stumble"))
        ops.append(_op(chance, kind, ids, label))
        left -= sum(op.get("count", 1) for op in flat(ops[-1:]))
    if chance.random() < 0.15:
        ops.append({"kind": "fail", "id": next(ids)})
    return Program(label, trigger, tuple(ops) if trigger != "crash/patient" else ())


def _op(chance: random.Random, kind: str, ids: Iterator[str], label: str) -> Op:
    op: Op = {"kind": kind, "id": next(ids)}
    match kind:
        case "sleep":
            op["seconds"] = chance.uniform(0, 0.02)
        case "event" | "picky":
            # A name of its own for each program: nobody has ever waited by these paths.
            op |= {"name": f"crash/awaited.{label}", "comes": chance.choice(("early", "any", "late"))}
        case "send" | "map":
            op["count"] = chance.randint(1, 4)
        case "gather":
            op["branches"] = [
                [_op(chance, chance.choice(PLAIN), ids, label) for _ in range(chance.randint(1, 2))] for _ in range(chance.randint(2, 3))
            ]
        case _:
            pass
    return op
