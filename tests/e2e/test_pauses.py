"""Functions paused, resumed and invoked by hand, with two gateways and two workers."""

from __future__ import annotations

import json
import threading
import time

import pytest

from tests.processes import until


def send(many, name: str, n: int, port: int | None = None) -> str:
    return many.site.call("POST", "/events", {"name": name, "data": {"n": n}}, port=port).json()["id"]


def statuses(many, function: str) -> dict[str, int]:
    runs = many.site.get(f"/runs?function={function}&limit=200")["data"]
    return {status: sum(run["status"] == status for run in runs) for status in {run["status"] for run in runs}}


def test_a_pause_on_one_gateway_holds_at_once_what_comes_by_any_and_a_resume_runs_all_of_it(many):
    assert "pausable is paused" in many.site.cli("functions", "pause", "pausable")
    for n in range(10):
        send(many, "own/pausable", n, many.ports[n % 2])
    invoked = many.site.call("POST", "/functions/pausable/invoke", {"data": {"n": 10}}, port=many.ports[1]).json()["id"]
    until(lambda: many.site.get("/functions/pausable", many.ports[1])["paused_at"], 1)
    until(lambda: many.site.get("/runs?function=conditional&status=succeeded&event=own/pausable")["data"])
    assert statuses(many, "pausable") == {"queued": 11}, "other functions run, and this one waits"
    [run] = many.site.get(f"/runs?event_id={invoked}")["data"]
    assert (run["reason"], run["attempts"]) == ("paused", 0)
    assert "pausable goes on" in many.site.cli("functions", "resume", "pausable")
    until(lambda: statuses(many, "pausable") == {"succeeded": 11}, 5)
    until(lambda: many.site.get("/functions/pausable", many.ports[1])["paused_at"] is None, 1)


def test_no_run_is_left_behind_by_a_gateway_that_heard_of_the_resume_last(many):
    done, sent = threading.Event(), []

    def keep_sending() -> None:
        while not done.is_set():
            sent.append(send(many, "own/raced", len(sent), many.ports[1]))

    sender = threading.Thread(target=keep_sending)
    sender.start()
    for _ in range(3):
        many.site.call("POST", "/functions/raced/pause")
        until(lambda: many.site.get("/functions/raced", many.ports[1])["paused_at"], 1)
        many.site.call("POST", "/functions/raced/resume")
        many.site.get("/functions/raced", many.ports[1])
        time.sleep(0.1)  # the other gateway does not know it yet
    done.set()
    sender.join()
    until(lambda: many.site.get("/runs/count?function=raced&status=succeeded")["count"] == len(sent), 5)


def test_pausing_twice_and_resuming_what_is_not_paused_change_nothing(many):
    first = many.site.call("POST", "/functions/stopped/pause").json()["paused_at"]
    assert many.site.call("POST", "/functions/stopped/pause").json()["paused_at"] == first
    for _ in range(2):
        assert many.site.call("POST", "/functions/stopped/resume").json()["paused_at"] is None
    event_id = send(many, "own/stopped", 1)
    until(lambda: many.site.get(f"/runs?event_id={event_id}&function=stopped")["data"][0]["status"] == "succeeded")


def test_a_run_retried_or_replayed_while_its_function_is_paused_waits_too(many):
    event_id = send(many, "own/fail", 1)
    until(lambda: many.site.get(f"/runs?event_id={event_id}&function=fail&status=failed")["data"])
    [run] = many.site.get(f"/runs?event_id={event_id}&function=fail")["data"]
    many.site.call("POST", "/functions/fail/pause")
    many.site.call("POST", f"/runs/{run['id']}/retry").raise_for_status()
    made = many.site.call("POST", f"/events/{event_id}/replay", {"functions": ["fail"]}).json()["runs"]
    until(lambda: many.site.get(f"/runs?event_id={send(many, 'own/stopped', 2)}&status=succeeded")["data"])
    for id_ in (run["id"], *made):
        assert (many.site.get(f"/runs/{id_}")["status"], many.site.get(f"/runs/{id_}")["reason"]) == ("queued", "paused")
    assert many.site.call("POST", f"/runs/{made[0]}/cancel").json()["status"] == "cancelled"
    many.site.call("POST", "/functions/fail/resume")
    until(lambda: many.site.get(f"/runs/{run['id']}")["status"] == "failed")
    assert many.site.get(f"/runs/{made[0]}")["status"] == "cancelled"


def test_invoke_runs_one_function_on_an_event_of_its_kind(many):
    out = many.site.cli("functions", "invoke", "stopped", "--data", '{"n": 12345678901234567890}', "--json")
    event_id = json.loads(out)["id"]
    until(lambda: many.site.get(f"/runs?event_id={event_id}&status=succeeded")["data"])
    [run] = many.site.get(f"/runs?event_id={event_id}")["data"]
    assert (run["function_id"], run["event_name"]) == ("stopped", "own/stopped")
    assert many.site.get(f"/runs/{run['id']}")["output"] == {"n": 12345678901234567890}


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "says"),
    [
        ("/functions/nope/invoke", {}, 404, "not_found", "no function 'nope'"),
        ("/functions/nope/pause", None, 404, "not_found", "no function 'nope'"),
        ("/functions/nope/resume", None, 404, "not_found", "no function 'nope'"),
        ("/functions/greet/invoke", {"date": {}}, 400, "invalid_request", "date"),
        ("/functions/greet/invoke", [1], 400, "invalid_request", "data"),
    ],
)
def test_what_cannot_be_invoked_or_paused_is_refused_with_what_is_wrong(many, path, body, status, code, says):
    answer = many.site.call("POST", path, body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert says in answer.json()["detail"]


def test_data_that_does_not_fit_the_functions_class_fails_its_run_at_once_naming_the_path(many):
    event_id = many.site.call("POST", "/functions/greet/invoke", {"data": {"id": "seven"}}).json()["id"]
    until(lambda: many.site.get(f"/runs?event_id={event_id}&status=failed")["data"])
    [run] = many.site.get(f"/runs?event_id={event_id}")["data"]
    error = many.site.get(f"/runs/{run['id']}")["error"]
    assert (error["type"], "$.id" in error["message"]) == ("PayloadMismatch", True)
    assert "not JSON" in many.site.cli("functions", "invoke", "greet", "--data", "{", code=1)
