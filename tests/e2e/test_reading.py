"""What people and programs read of what happened: the API's answers, and the command line's words."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.processes import API_KEY, SECRET, Site, site, until

FUNCTIONS = """
from gateway import Context, NonRetriableError, function

@function(on="own/echo")
async def echo(ctx: Context) -> object:
    return ctx.event.data

@function(on="own/fail", retries=0)
def fails(ctx: Context) -> None:
    deeper(ctx.event.data)

def deeper(data: object) -> None:
    raise ValueError(f"cannot take {data}")

@function(on="own/never")
async def never(ctx: Context) -> None:
    raise NonRetriableError("this can never work")
"""
AUTH = {"Authorization": f"Bearer {API_KEY}"}
OPERATIONS = """
addSourceSecret cancelRun changeSource changeSourceSecret countDeliveries countEvents countRequests countRuns createKey
createSource deleteSource disableSource discardRequest enableSource getEvent getEventType getFunction getHealth getMetrics
getProvider getReadiness getRequest getRequestRaw getRun getSource invokeFunction listDeliveries listEventDeliveries
listEventTypes listEvents listFunctions listKeys listProviders listRequests listRunAttempts listRunLogs listRunSteps listRuns listSources
pauseFunction removeSourceSecret replayEvent reprocessRequest reprocessRequests resumeFunction retryRun revokeKey sendEvents
sendSignal testSource
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("site"), functions=FUNCTIONS) as made:
        made.start("serve")
        made.wait_ready()
        yield made


def call(served: Site, method: str, path: str, key: str = API_KEY, **rest: object) -> httpx.Response:
    return httpx.request(method, f"{served.url()}/api/v1{path}", headers={"Authorization": f"Bearer {key}"}, timeout=10, **rest)


def send(served: Site, name: str, data: str = "{}") -> str:
    return call(served, "POST", "/events", content=f'{{"name": "{name}", "data": {data}}}').json()["id"]


def ended(served: Site, event_id: str) -> dict:
    """The one delivery of an event, once its run has ended."""
    until(lambda: served.get(f"/events/{event_id}/deliveries")["data"][0]["status"] in ("succeeded", "failed"))
    return served.get(f"/events/{event_id}/deliveries")["data"][0]


def tidegate(served: Site, *words: str) -> str:
    (served.folder / f"{words[0]}.log").unlink(missing_ok=True)
    return served.run(*words).stdout


def key_with(served: Site, *scopes: str) -> str:
    return call(served, "POST", "/keys", json={"name": "test", "scopes": scopes}).json()["key"]


def test_what_a_run_returned_is_shown_only_to_keys_that_may_read_payloads(served):
    run_id = ended(served, send(served, "own/echo", '"a secret word"'))["run_id"]
    reads, reads_all, replays = key_with(served, "read"), key_with(served, "read", "payload:read"), key_with(served, "read", "replay")
    assert call(served, "GET", f"/runs/{run_id}").json()["output"] == "a secret word"
    assert call(served, "GET", f"/runs/{run_id}", reads_all).json()["output"] == "a secret word"
    assert call(served, "GET", "/runs?include=payload", reads_all).json()["data"][0]["output"] == "a secret word"
    assert call(served, "GET", "/runs?include=payload", reads).status_code == 403
    for key, path in [(reads, f"/runs/{run_id}"), (reads, "/runs?include=attempts"), (reads_all, "/runs"), (reads, "/deliveries")]:
        answer = call(served, "GET", path, key)
        assert answer.status_code == 200
        assert "secret word" not in answer.text
    failed = ended(served, send(served, "own/never"))["run_id"]
    retried = call(served, "POST", f"/runs/{failed}/retry", replays)
    assert (retried.status_code, "output" in retried.json()) == (200, False)


def test_an_events_deliveries_tell_every_attempt_of_every_run(served):
    delivery = ended(served, send(served, "own/fail"))
    (attempt,) = delivery["attempt_list"]
    assert (attempt["number"], attempt["outcome"], attempt["error"]["type"]) == (1, "failed", "ValueError")
    assert attempt["started_at"] <= attempt["finished_at"]
    call(served, "POST", f"/runs/{delivery['run_id']}/retry")
    until(lambda: len(ended(served, delivery["event_id"])["attempt_list"]) == 2)


def test_generated_clients_find_the_same_names_in_every_version(served):
    paths = httpx.get(served.url() + "/schema/openapi.json").json()["paths"]
    found = [operation["operationId"] for methods in paths.values() for operation in methods.values()]
    assert sorted(found) == OPERATIONS.split()


@pytest.mark.parametrize("number", ["NaN", "-Infinity"])
def test_a_payload_that_only_python_takes_for_json_breaks_no_reader(served, number):
    now = int(time.time())
    body = f'{{"id": "evt_{number}", "type": "x", "data": {{"n": {number}}}}}'.encode()
    digest = hmac.new(SECRET.encode(), f"{now}.".encode() + body, hashlib.sha256).hexdigest()
    arrived = httpx.post(served.url() + "/webhooks/stripe", content=body, headers={"Stripe-Signature": f"t={now},v1={digest}"})
    event_id = arrived.json()["id"]
    for text in (call(served, "GET", f"/events/{event_id}").text, tidegate(served, "events", "show", event_id, "--json")):
        assert number in json.loads(text, parse_constant=pytest.fail)["data"]
    refused = call(served, "POST", "/events", content=f'{{"name": "own/echo", "data": {number}}}')
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_event")


def test_g11_the_command_line_shows_numbers_as_they_came(served):
    data = '{"big": 12345678901234567890123, "huge": 1e999, "exact": 1.50, "s": "\\ud800"}'
    for given in (data, data.replace("\\ud800", "ü")):
        shown = tidegate(served, "events", "show", send(served, "own/other", given), "--json")
        assert "12345678901234567890123" in shown
    assert "1e999" in shown
    assert "1.50" in shown


def test_headers_that_are_too_long_are_refused_with_a_problem(served):
    headers = {"X-Long": "x" * 66_000}
    for response in (httpx.post(served.url() + "/webhooks/stripe", headers=headers), in_pieces(served)):
        assert response.status_code == 431
        assert response.headers["content-type"] == "application/problem+json"
        assert (response.json()["code"], response.json()["request_id"]) == ("headers_too_large", response.headers["x-request-id"])


def in_pieces(served: Site) -> httpx.Response:
    """The answer to a head that never ends."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=5) as connection:
        connection.sendall(b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\nX-Long: ")
        # What is left unread when a connection is closed may cost the answer: nothing is.
        connection.sendall(b"x" * 65_000)
        connection.sendall(b"x" * 1_000)
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    pairs = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
    return httpx.Response(int(status.split()[1]), headers=pairs, content=body)


def test_runs_are_found_by_their_event_and_an_empty_answer_names_the_filter(served):
    event_id = send(served, "own/echo")
    run_id = ended(served, event_id)["run_id"]
    found = json.loads(tidegate(served, "runs", "--event", event_id, "--json"))["data"]
    assert [run["id"] for run in found] == [run_id]
    assert run_id in tidegate(served, "runs", "--event", "own/*")
    assert tidegate(served, "runs", "--event", "no/such", "--status", "failed").strip() == "No runs match --status failed --event no/such"
    assert "not both" in tidegate(served, "runs", "--event", event_id, "--event", "own/echo")
    assert tidegate(served, "requests", "--source", "github").strip() == "No requests match --source github"
    assert tidegate(served, "events", "--name", "no/such").strip() == "No events match --name no/such"


def test_a_failed_run_says_what_happened_and_then_where_in_the_authors_code(served):
    run_id = ended(served, send(served, "own/fail", "7"))["run_id"]
    shown = tidegate(served, "runs", "show", run_id)
    assert shown.index("ValueError: cannot take 7") < shown.index("Traceback") < shown.index("in deeper")
    assert "gateway/engine" not in shown
    assert f"tidegate runs retry {run_id}" in shown


def test_an_event_is_shown_with_its_attempts_and_what_to_do_next(served):
    event_id = send(served, "own/fail", "8")
    run_id = ended(served, event_id)["run_id"]
    for shown in (tidegate(served, "events", "show", event_id), tidegate(served, "events", "deliveries", event_id)):
        assert "attempt 1" in shown
        assert "ValueError: cannot take 8" in shown
        assert f"tidegate runs show {run_id}" in shown
    alone = tidegate(served, "events", "show", send(served, "nobody/listens"))
    assert "no function listened to it" in alone
