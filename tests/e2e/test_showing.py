"""What the command line says of runs that were cut off, cancelled, taken up again, or left alone with their version."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.processes import Site, site, until

FUNCTIONS = """
import os
import signal
from pathlib import Path

from gateway import Context, function

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def die_once():
    if not Path("died.txt").exists():
        Path("died.txt").touch()
        die()

@function(on="s/dies")
async def dies(ctx: Context) -> None:
    await ctx.step.run("deadly", die_once)

@function(on="s/deadly", retries=0)
async def deadly(ctx: Context) -> None:
    await ctx.step.run("deadly", die)

@function(on="s/fails")
async def fails(ctx: Context) -> None:
    raise ValueError("not yet")

@function(on="s/forgets", retries=0)
async def forgets(ctx: Context) -> None:
    ctx.logger.info("begun")
    if not Path("slept.txt").exists():
        await ctx.step.run("once", Path("slept.txt").touch)
        ctx.logger.warning("said before it slept")
    await ctx.step.sleep("nap", seconds=0.05)
    for n in range(ctx.event.data["warnings"]):
        ctx.logger.warning("warning %d", n)

@function(on="s/pinned", version=1)
async def pinned(ctx: Context) -> None:
    await ctx.step.run("noted", int)
    await ctx.step.wait_for_signal("go", "never")

@function(on="s/parked")
async def parked(ctx: Context) -> None:
    await ctx.step.wait_for_signal("go", "never")
"""
NEW = FUNCTIONS.replace("version=1", "version=2").replace('"noted"', '"jotted"').replace('on="s/parked"', 'on="s/parked", version=7')


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("shown"), functions=FUNCTIONS) as made:
        made.start("serve")
        made.wait_ready()
        yield made


def run_of(shown: Site, function: str, status: str, data: object = None) -> str:
    """The id of a new run of a function, once it is so."""
    event_id = shown.call("POST", "/events", {"name": f"s/{function}", "data": data}).json()["id"]
    found: list[str] = []

    def there() -> bool:
        found[:] = [run["id"] for run in shown.get(f"/runs?event_id={event_id}")["data"] if run["status"] == status]
        return bool(found)

    until(there)
    return found[0]


def test_g5_an_attempt_that_was_cut_off_is_shown_with_what_became_of_what_it_had_begun(shown):
    told = shown.cli("runs", "show", run_of(shown, "dies", "succeeded"))
    assert "attempt 1" in told
    assert "lease_lost\n    WorkerLost" in told
    assert told.count("    what it had begun and not committed is begun again\n") == 1


def test_g6_of_the_last_attempt_that_was_cut_off_it_says_that_nothing_is_known(shown):
    told = shown.cli("runs", "show", run_of(shown, "deadly", "failed"))
    assert told.count("    what it had begun and not committed may have happened all the same\n") == 1
    assert "is begun again" not in told
    assert "Once it is mended, run it again: tidegate runs retry" in told


def test_a_run_that_somebody_cancelled_has_nothing_to_mend(shown):
    run_id = run_of(shown, "parked", "waiting")
    shown.cli("runs", "cancel", run_id)
    told = shown.cli("runs", "show", run_id)
    assert f"To run it after all: tidegate runs retry {run_id}" in told
    assert "mended" not in told


def test_why_a_run_was_cancelled_is_told_beside_why_an_attempt_failed(shown):
    run_id = run_of(shown, "fails", "waiting")
    shown.cli("runs", "cancel", run_id)
    told = shown.cli("runs", "show", run_id)
    assert "    ValueError: not yet\n" in told
    assert told.count("    Cancelled: it was cancelled\n") == 1
    final = shown.cli("runs", "show", run_of(shown, "deadly", "failed"))
    assert final.count("WorkerLost: ") == 1


def test_a_step_that_was_not_come_to_again_is_told_below_the_steps(shown):
    run_id = run_of(shown, "forgets", "succeeded", {"warnings": 0})
    told = shown.cli("runs", "show", run_id)
    assert told.count("warning: step 'once' was done earlier in this run, and the function ended without coming to it again") == 1
    assert "said before it slept" not in told, "that was another time"

    again = run_of(shown, "forgets", "succeeded", {"warnings": 7})
    told = shown.cli("runs", "show", again)
    assert [line for line in told.splitlines() if line.startswith("warning")] == [f"warning: warning {n}" for n in range(2, 7)]
    assert f"and 2 warnings before: tidegate runs logs {again}" in told

    lines = json.loads(shown.cli("runs", "logs", run_id, "--json"))["data"]
    warned = shown.get(f"/runs/{run_id}/logs?level=warning")["data"]
    assert warned == [line for line in lines if line["level"] == "warning"]
    assert shown.get(f"/runs/{run_id}/logs?level=error&level=critical")["data"] == []
    assert shown.call("GET", f"/runs/{run_id}/logs?level=loud").status_code == 400


def test_lines_that_are_said_again_after_a_sleep_stand_behind_a_rule(shown):
    run_id = run_of(shown, "forgets", "succeeded", {"warnings": 0})
    told = [line.split("  ")[-1] for line in shown.cli("runs", "logs", run_id).splitlines()]
    begun = [n for n, line in enumerate(told) if line.endswith("begun")]
    assert len(begun) == 2
    assert told[begun[1] - 1] == "--- attempt 1 goes on, once more from its beginning"
    assert sum(line.startswith("---") for line in told) == 1
    fences = [line["fence"] for line in shown.get(f"/runs/{run_id}/logs")["data"]]
    assert fences == sorted(fences)
    assert len(set(fences)) == 2


def test_a_run_says_which_version_it_goes_on_with_and_what_to_do_when_nobody_offers_that(shown):
    pinned, parked = run_of(shown, "pinned", "waiting"), run_of(shown, "parked", "waiting")
    assert [shown.get(f"/runs/{run_id}")["version"] for run_id in (pinned, parked)] == [1, None]
    assert "version      1\n" in shown.cli("runs", "show", pinned)
    assert "version" not in shown.cli("runs", "show", parked)
    replayed = shown.cli("runs", "replay", pinned, "--local")
    assert f"{pinned} of pinned, version 1, with the code that is here" in replayed

    file = shown.folder / "functions" / "crash_functions.py"
    file.write_text(FUNCTIONS + '\n@function(on="s/pinned", id="pinned", version=2)\nasync def newer(ctx: Context) -> None: ...\n')
    assert "noted  as recorded" in shown.cli("runs", "replay", pinned, "--local"), "the version that it goes on with, and not the newest"

    file.write_text(NEW)
    shown.stop()
    shown.start("serve")
    shown.wait_ready()
    until(lambda: shown.get(f"/runs/{pinned}")["reason"] == "no_worker_offers_it")
    told = shown.cli("runs", "show", pinned)
    assert "version      1\n" in told
    remedy = "version 1 of function 'pinned', which nobody offers: declare it again beside the new one, or cancel it: tidegate runs cancel"
    assert f"It waits for {remedy} {pinned}" in told
    assert f"1 run waits for {remedy} {pinned}" in shown.cli("doctor", code=1)
    assert "It waits for function 'parked', which nobody offers: bring it back" in shown.cli("runs", "show", parked)
    told = shown.cli("runs", "replay", pinned, "--local", code=1)
    assert told.strip().endswith("The run goes on with version 1 of function 'pinned'; here there is only version 2.")
    told = shown.cli("runs", "replay", parked, "--local", code=1)
    assert "The run goes on with the one without a version of function 'parked'; here there is only version 7." in told
