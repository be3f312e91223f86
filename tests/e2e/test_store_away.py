"""What senders and operators see while the store is in trouble."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sqlite3
import time

import httpx
import psycopg

from tests.processes import Site, post, site, until


def ready(made: Site) -> tuple[int, str]:
    answer = httpx.get(made.url() + "/readyz", timeout=10)
    return answer.status_code, answer.json()["store"]["state"]


def refused_in_time(made: Site, key: str) -> None:
    started = time.monotonic()
    answer = post(made.url(), key)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer.headers["retry-after"]
    assert time.monotonic() - started < 2.5


def lines(made: Site, words: str) -> int:
    return made.log("gateway").count(words)


def test_a_locked_database_is_a_503_in_time_one_line_and_over_by_itself(tmp_path):
    with site(tmp_path) as made:
        made.run("migrate")
        made.start("gateway")
        made.wait_ready()
        first = post(made.url(), "evt_before").json()["id"]
        other = sqlite3.connect(made.folder / "data" / "tidegate.db", isolation_level=None)
        other.execute("begin immediate")
        for n in range(30):
            refused_in_time(made, f"evt_{n}")
        assert ready(made) == (503, "locked")
        assert httpx.get(made.url() + "/healthz").status_code == 200
        other.execute("rollback")
        other.close()
        until(lambda: ready(made) == (200, "ok"))
        until(lambda: post(made.url(), "evt_0").status_code == 200)
        assert post(made.url(), "evt_before").json() == {"id": first, "duplicate": True}
        assert lines(made, "store.away") == 1
        assert lines(made, "store.back") == 1


def test_each_line_of_the_log_says_which_process_wrote_it(tmp_path):
    loud = "import logging\nfrom gateway import function\n\n@function(on='stripe/*')\ndef loud(ctx):\n    logging.info('told')\n"
    with site(tmp_path, functions=loud) as made:
        made.run("migrate")
        made.start("gateway")
        made.wait_ready()
        made.start("worker")
        until(lambda: made.get("/functions")["data"])
        post(made.url(), "evt_loud")
        until(lambda: "told" in made.log("worker"))
        with made.locked():
            until(lambda: "store.away" in made.log("gateway") and "store.away" in made.log("worker"), 60)
        until(lambda: "store.back" in made.log("gateway") and "store.back" in made.log("worker"))
        alive: dict[str, set[str]] = {"gateway": set(), "worker": set()}
        with sqlite3.connect(made.folder / "data" / "tidegate.db") as database:
            for kind, id in database.execute("select kind, id from processes"):
                alive[kind].add(id)
        for kind, ids in alive.items():
            said = [json.loads(line) for line in made.log(kind).splitlines() if line.startswith("{")]
            assert {line.get("process_id") for line in said} == ids, said


def test_a_turn_that_somebody_keeps_is_a_503_in_time_that_says_so_and_over_by_itself(tmp_path):
    with site(tmp_path) as made:
        made.run("migrate")
        made.start("gateway")
        made.wait_ready()
        with (made.folder / "data" / "tidegate.turn").open("rb") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            refused_in_time(made, "evt_while")
            refused_in_time(made, "evt_other")
            assert ready(made) == (503, "locked")
        until(lambda: ready(made) == (200, "ok"))
        until(lambda: post(made.url(), "evt_while").status_code == 200)


def test_a_server_that_hangs_is_a_503_in_time_and_what_it_did_all_the_same_is_found(tmp_path, postgres_url):
    with site(tmp_path, database_url=postgres_url) as made:
        made.run("migrate")
        made.start("gateway")
        made.wait_ready()
        assert post(made.url(), "evt_before").status_code == 200
        with psycopg.connect(postgres_url, autocommit=True) as control:
            found = control.execute("select pid from pg_stat_activity where application_name = 'tidegate' and datname = current_database()")
            backends = [row[0] for row in found.fetchall()]
        for pid in backends:
            os.kill(pid, signal.SIGSTOP)
        try:
            refused_in_time(made, "evt_while")
            refused_in_time(made, "evt_other")
            assert ready(made) == (503, "stalled")
        finally:
            for pid in backends:
                os.kill(pid, signal.SIGCONT)
        until(lambda: ready(made) == (200, "ok"))
        until(lambda: post(made.url(), "evt_while").status_code == 200)
        events = made.get("/events?limit=200")["data"]
        assert sum(event["key"] == "evt_while" for event in events) == 1
