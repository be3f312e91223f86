"""`tidegate runs replay --local`: what today's code makes of recorded runs, over the API of a real gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.processes import API_KEY, Site, site, until

BEFORE = """
import asyncio
from pathlib import Path
from gateway import Context, Event, NonRetriableError, StepError, SyncContext, function, new_event

def did(what):
    with open("did.txt", "a") as file:
        file.write(what + "\\n")
    return what

def flaky(what):
    if not Path("tried.txt").exists():
        Path("tried.txt").touch()
        raise ValueError("the first time")
    return did(what)

@function(on="r/all")
async def everything(ctx: Context[Event]) -> object:
    first = await ctx.step.with_options(retries=9).run("first", flaky, "first")
    await ctx.step.sleep("short", seconds=0.05)
    both = await asyncio.gather(ctx.step.run("left", did, "left"), ctx.step.run("right", did, "right"))
    many = await ctx.step.map("many", did, ["x", "y"])
    ids = await ctx.step.send_event("send", new_event("r/sent"))
    got = await ctx.step.wait_for_event("got", "r/sent", timeout=60)
    none = await ctx.step.wait_for_event("none", "r/never", timeout=0.05)
    child = await ctx.step.invoke("child", doubled, 4)
    try:
        await ctx.step.with_options(retries=0).run("fails", int, "no number")
    except StepError as error:
        failed = error.type
    return [first, both, many, len(ids), got and got.name, none, child, failed]

@function()
async def doubled(ctx: Context[Event]) -> int:
    return ctx.event.data * 2

@function(on="r/plain")
def plain(ctx: SyncContext[Event]) -> object:
    def branch(name):
        return [ctx.step.run(f"{name}-{n}", did, name) for n in (1, 2)]
    return [ctx.step.run("first", did, "first"), ctx.step.parallel(lambda: branch("a"), lambda: branch("b"))]

@function(on="r/longer")
async def longer(ctx: Context[Event]) -> int:
    await ctx.step.run("one", did, "one")
    return 1

@function(on="r/shorter")
async def shorter(ctx: Context[Event]) -> int:
    await ctx.step.run("one", did, "one")
    await ctx.step.run("two", did, "two")
    return 1

@function(on="r/turned")
async def turned(ctx: Context[Event]) -> int:
    await ctx.step.run("one", did, "one")
    await ctx.step.run("two", did, "two")
    return 1

@function(on="r/kind")
async def kind(ctx: Context[Event]) -> int:
    await ctx.step.run("one", did, "one")
    return 1

@function(on="r/output")
async def output(ctx: Context[Event]) -> object:
    return {"n": await ctx.step.run("one", did, "one")}

async def told(ctx):
    return [ctx.failure.type, ctx.failed_run_id, await ctx.step.run("tell", did, "tell")]

@function(on="r/mended", on_failure=told)
async def mended(ctx: Context[Event]) -> int:
    await ctx.step.run("one", did, "one")
    raise NonRetriableError("it is broken")

@function(on="r/waits")
async def waits(ctx: Context[Event]) -> object:
    await ctx.step.run("one", did, "one")
    await ctx.step.sleep("long", days=1)
    return await ctx.step.run("two", did, "two")
"""

# What has become of the functions above, as (old, new) pieces of their code.
CHANGES = {
    "longer": (
        "    return 1",
        """    await asyncio.gather(
        ctx.step.run("new-run", did, "new"),
        ctx.step.send_event("new-send", new_event("r/sent")),
        ctx.step.sleep("new-sleep", seconds=1),
        ctx.step.wait_for_event("new-event", "r/sent"),
        ctx.step.wait_for_signal("new-signal", "approval"),
        ctx.step.invoke("new-invoke", doubled, 1),
    )
    return 1""",
    ),
    "shorter": ('    await ctx.step.run("two", did, "two")\n', ""),
    "turned": (
        '    await ctx.step.run("one", did, "one")\n    await ctx.step.run("two", did, "two")',
        '    await ctx.step.run("two", did, "two")\n    await ctx.step.run("one", did, "one")',
    ),
    "kind": ('ctx.step.run("one", did, "one")', 'ctx.step.sleep("one", hours=1)'),
    "output": ('{"n": ', '{"m": '),
    "mended": ('    raise NonRetriableError("it is broken")', "    return 1"),
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("replay"), functions=BEFORE) as made:
        made.start("serve")
        made.wait_ready()
        yield made


@pytest.fixture(scope="module")
def runs(served: Site) -> dict[str, str]:
    """A recorded run of every function."""
    names = ["all", "plain", *CHANGES, "waits"]
    for name in names:
        assert served.call("POST", "/events", {"name": f"r/{name}", "data": {"id": 1}}).status_code in (200, 201, 202)

    def found() -> dict[str, str]:
        return {one["function_id"]: one["id"] for one in served.get("/runs")["data"] if one["status"] in ("succeeded", "failed")}

    until(lambda: {"everything", "plain", *CHANGES, "mended.on-failure"} <= set(found()))
    until(lambda: served.get("/runs?function=waits&status=waiting")["data"])
    return {**found(), "waits": served.get("/runs?function=waits")["data"][0]["id"]}


def replayed(served: Site, run_id: str, *options: str, code: int = 0) -> dict[str, Any]:
    return json.loads(served.cli("runs", "replay", run_id, "--local", "--json", *options, code=code))


@pytest.fixture
def change(served: Site) -> Iterator[Any]:
    """Changes the functions' code; afterwards it is as it was."""
    file = served.folder / "functions" / "crash_functions.py"

    def changed(name: str) -> None:
        head, _, rest = BEFORE.partition(f"def {name}(")
        old, new = CHANGES[name]
        assert old in rest
        file.write_text(f"{head}def {name}({rest.replace(old, new, 1)}")

    yield changed
    file.write_text(BEFORE)


@pytest.mark.parametrize("name", ["everything", "plain", "doubled", "mended", "mended.on-failure", "waits", "shorter"])
def test_unchanged_code_does_what_was_recorded_and_does_no_step_again(served, runs, name):
    done = (served.folder / "did.txt").read_text()
    record = [served.get(f"/runs/{runs[name]}{part}") for part in ("", "/steps", "/attempts", "/logs")]
    events = served.get("/events/count")
    found = replayed(served, runs[name])
    assert found["differences"] == []
    assert {step["state"] for step in found["steps"]} <= {"same"}
    assert len(found["steps"]) == len(record[1]["data"])
    assert found["today"]["status"] == record[0]["status"]
    assert (served.folder / "did.txt").read_text() == done
    assert [served.get(f"/runs/{runs[name]}{part}") for part in ("", "/steps", "/attempts", "/logs")] == record
    assert served.get("/events/count") == events


@pytest.mark.parametrize(
    ("name", "states", "today", "said"),
    [
        (
            "longer",
            {"one": "same"} | {f"new-{kind}": "new" for kind in ("run", "send", "sleep", "event", "signal", "invoke")},
            "waiting",
            [*["step 'new-"] * 6, "the run succeeded, and today it waits"],
        ),
        (
            "shorter",
            {"one": "same", "two": "unreached"},
            "succeeded",
            ["step 'two' is in the record, and today's code does not come to it"],
        ),
        ("turned", {"two": "same", "one": "moved"}, "succeeded", ["step 'one' comes in another order than recorded"]),
        (
            "kind",
            {"one": "other_kind"},
            "failed",
            ["step 'one' is `step.sleep`, and was `step.run`", "the run succeeded, and today it failed with StepMismatch"],
        ),
        ("output", {"one": "same"}, "succeeded", ["the output is another one"]),
        (
            "mended",
            {"one": "same"},
            "succeeded",
            ["the run failed with NonRetriableError: it is broken, and today it succeeded"],
        ),
    ],
)
def test_changed_code_is_told_by_what_it_would_do_otherwise(served, runs, change, name, states, today, said):
    change(name)
    done, sent = (served.folder / "did.txt").read_text(), served.get("/events/count")
    found = replayed(served, runs[name], code=1)
    assert {step["key"]: step["state"] for step in found["steps"]} == states
    assert found["today"]["status"] == today
    assert [told.startswith(wanted) for told, wanted in zip(found["differences"], said, strict=True)] == [True] * len(said), found[
        "differences"
    ]
    assert ((served.folder / "did.txt").read_text(), served.get("/events/count")) == (done, sent)


def test_for_people_it_is_a_tree_with_what_differs_below(served, runs, change):
    unchanged = served.cli("runs", "replay", runs["everything"], "--local")
    assert "nothing differs" in unchanged
    assert "short  step.sleep  as recorded" in unchanged
    change("shorter")
    shown = served.cli("runs", "replay", runs["shorter"], "--local", code=1)
    assert "one  as recorded" in shown
    assert "differs: step 'two' is in the record, and today's code does not come to it" in shown


def test_without_local_it_says_what_it_is_for_and_how_to_run_the_event_again(served, runs):
    event = served.get(f"/runs/{runs['longer']}")["event_id"]
    said = served.cli("runs", "replay", runs["longer"], code=1)
    assert "add --local" in said
    assert f"tidegate events replay {event}" in said


def test_a_function_that_is_not_here_is_named_with_where_it_was_looked_for(served, runs, tmp_path):
    file = served.folder / "functions" / "crash_functions.py"
    file.write_text("import nothing_of_this_name\n")
    try:
        said = served.cli("runs", "replay", runs["longer"], "--local", code=1)
    finally:
        file.write_text(BEFORE)
    assert "There is no function 'longer' here" in said
    assert "crash_functions.py was left out: ModuleNotFoundError" in said


def test_a_key_that_may_not_read_payloads_is_refused_by_name_of_the_scope(served, runs):
    key = served.call("POST", "/keys", {"name": "reader", "scopes": ["read"]}).json()["key"]
    served.settings["TIDEGATE_API_KEY"] = key
    try:
        said = served.cli("runs", "replay", runs["longer"], "--local", code=1)
    finally:
        served.settings["TIDEGATE_API_KEY"] = API_KEY
    assert "payload:read" in said
