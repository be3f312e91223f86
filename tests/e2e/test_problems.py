"""Every error code is answered over real HTTP, as a problem that says what to do; a new code without a way to get it fails here."""

from __future__ import annotations

import contextlib
import json
import socket
import sqlite3
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from gateway.api.problems import MEDIA_TYPE, PROBLEMS
from tests.processes import API_KEY, HTTP, Site, post, stripe_delivery, until

AUTH = {"Authorization": f"Bearer {API_KEY}"}


@dataclass
class Answer:
    """What came back, whoever read it from the wire."""

    status: int
    headers: dict[str, str]
    body: bytes


def http(tight: Site, method: str, path: str, **rest: object) -> Answer:
    response = HTTP.request(method, tight.url() + path, **rest)  # type: ignore[arg-type]
    return Answer(response.status_code, dict(response.headers), response.content)


def wire(tight: Site, *parts: bytes) -> Answer:
    """Send bytes as they are; the answer is read until the connection ends."""
    with socket.create_connection(("127.0.0.1", tight.port), timeout=5) as connection:
        for part in parts:
            connection.sendall(part)
        text = connection.makefile("rb").read()
    head, _, body = text.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return Answer(int(status.split()[1]), {name.lower(): value for name, value in headers.items()}, body)


def key(tight: Site, *scopes: str) -> dict[str, str]:
    return {"Authorization": "Bearer " + tight.call("POST", "/keys", {"name": "p", "scopes": scopes}).json()["key"]}


def bad_signature(tight: Site) -> Answer:
    body, headers = stripe_delivery("evt_p", secret="whsec_wrong")
    return http(tight, "POST", "/webhooks/stripe", content=body, headers=headers)


def stale(tight: Site) -> Answer:
    tight.call("POST", "/sources", {"name": "staled", "provider": "stripe", "secrets": ["whsec_s"]})
    return http(tight, "POST", "/api/v1/sources/staled/disable", headers={**AUTH, "If-Match": '"0"'})


def mismatched(tight: Site) -> Answer:
    headers = {**AUTH, "Idempotency-Key": str(uuid.uuid4())}
    http(tight, "POST", "/api/v1/events", json={"name": "p/one"}, headers=headers)
    return http(tight, "POST", "/api/v1/events", json={"name": "p/two"}, headers=headers)


def in_progress(tight: Site) -> Answer:
    headers = {**AUTH, "Idempotency-Key": str(uuid.uuid4())}
    batch = [{"name": "p/many"}] * 2000
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: http(tight, "POST", "/api/v1/events", json=batch, headers=headers), range(6)))
    return next(answer for answer in answers if answer.status == 409)


def too_many(tight: Site) -> Answer:
    headers = key(tight, "read")
    return [http(tight, "GET", "/api/v1/functions", headers=headers) for _ in range(301)][-1]


def internal(tight: Site) -> Answer:
    """A stored request whose headers are no JSON: something that we should never have written."""
    refused = post(tight.url(), "evt_damaged", secret="whsec_wrong").headers["x-request-id"]
    until(lambda: tight.call("GET", f"/requests/{refused}").status_code == 200)
    with contextlib.closing(sqlite3.connect(tight.folder / "data" / "tidegate.db")) as database, database:
        database.execute("update requests set headers = ? where id = ?", (b"not json", refused))
    answer = http(tight, "GET", f"/api/v1/requests/{refused}", headers={**AUTH, "X-Request-Id": "look-me-up"})
    [line] = [json.loads(line) for line in tight.log("gateway").splitlines() if "look-me-up" in line]
    assert (line["fact"], line["level"], line["request"]) == ("api.error", "error", "look-me-up")
    assert "Traceback" in line["exception"]
    return answer


def away(tight: Site) -> Answer:
    with tight.locked():
        started = time.monotonic()
        answer = http(tight, "POST", "/api/v1/events", json={"name": "p/away"}, headers=AUTH)
        assert time.monotonic() - started < 2.5
    return answer


def overloaded(tight: Site) -> Answer:
    """More at once than the journal takes, while it cannot write."""
    with tight.locked(), ThreadPoolExecutor(60) as pool:
        answers = list(pool.map(lambda n: http(tight, "POST", "/api/v1/events", json={"name": "p/load"}, headers=AUTH), range(60)))
        assert {answer.status for answer in answers} == {503}
    return next(answer for answer in answers if b"overloaded" in answer.body)


CHUNKED = b"POST /webhooks/stripe HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
PROVOKED: dict[str, Callable[[Site], Answer]] = {
    "verification_failed": bad_signature,
    "unauthorized": lambda tight: http(tight, "GET", "/api/v1/events"),
    "forbidden": lambda tight: http(tight, "POST", "/api/v1/events", json={"name": "p/a"}, headers=key(tight, "read")),
    "unknown_source": lambda tight: http(tight, "POST", "/webhooks/none-of-this-name"),
    "not_found": lambda tight: http(tight, "GET", "/api/v1/runs/run_none", headers=AUTH),
    "method_not_allowed": lambda tight: http(tight, "GET", "/webhooks/stripe"),
    "conflict": lambda tight: http(tight, "DELETE", "/api/v1/sources/stripe", headers=AUTH),
    "precondition_failed": stale,
    "too_large": lambda tight: http(tight, "POST", "/webhooks/stripe", content=b"x" * 100_001),
    "unsupported_media_type": lambda tight: http(tight, "POST", "/webhooks/stripe", content=b"", headers={"Content-Encoding": "gzip"}),
    "invalid_request": lambda tight: http(tight, "POST", "/api/v1/keys", json={"name": "", "scopes": []}, headers=AUTH),
    "invalid_cursor": lambda tight: http(tight, "GET", "/api/v1/runs?cursor=nonsense", headers=AUTH),
    "unknown_parameter": lambda tight: http(tight, "GET", "/api/v1/runs?colour=red", headers=AUTH),
    "invalid_event": lambda tight: http(tight, "POST", "/api/v1/events", json={"name": "no slash"}, headers=AUTH),
    "unreadable": lambda tight: wire(tight, CHUNKED + b"zz\r\nnot a chunk\r\n"),
    "timeout": lambda tight: wire(tight, CHUNKED + b"2\r\n{}\r\n"),
    "idempotency_mismatch": mismatched,
    "idempotency_in_progress": in_progress,
    "rate_limited": too_many,
    "headers_too_large": lambda tight: wire(tight, b"GET / HTTP/1.1\r\nX: " + b"x" * 66_000),
    "internal": internal,
    "unavailable": away,
    "overloaded": overloaded,
}


def test_every_code_has_a_way_to_be_got():
    assert set(PROVOKED) == set(PROBLEMS)


@pytest.mark.parametrize("code", PROVOKED)
def test_every_code_is_answered_as_a_problem_that_says_what_to_do(tight, code):
    answer = PROVOKED[code](tight)
    status, title, _ = PROBLEMS[code]
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == MEDIA_TYPE
    problem = json.loads(answer.body)
    assert (problem["code"], problem["status"], problem["title"]) == (code, status, title)
    assert problem["type"] == f"urn:tidegate:problem:{code}"
    assert len(problem["detail"]) > 15
    assert problem["request_id"]
    assert answer.headers.get("x-request-id", problem["request_id"]) == problem["request_id"]
    if status in (429, 503):
        assert 1 <= int(answer.headers["retry-after"]) <= 61
    if status == 405:
        assert answer.headers["allow"] == "POST"
    for told in ("sqlite", "Traceback", "gateway/", str(tight.folder)):
        assert told not in answer.body.decode()


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/webhooks/none-of-this-name"), ("GET", "/webhooks/"), ("PUT", "/api/v1/events"), ("GET", "/nowhere")]
)
def test_what_is_not_there_is_a_problem_wherever_one_looks(tight, method, path):
    answer = http(tight, method, path, headers=AUTH)
    assert (answer.status in (404, 405), answer.headers["content-type"]) == (True, MEDIA_TYPE)


def test_a_word_that_an_enumeration_has_not_is_told_with_those_it_has(tight):
    said = tight.call("POST", "/keys", {"name": "p", "scopes": ["read", "fly"]}).json()
    assert said["detail"] == "scopes[1]: Invalid enum value 'fly'; there are read, payload:read, send, replay, admin"
    assert said["errors"][0]["pointer"] == "/scopes/1"
    said = tight.call("GET", "/runs?include=everything").json()
    assert "there are attempts, payload" in said["detail"]


@pytest.mark.parametrize("name", ["a:b/c", "a/b:c", "a.b-c_d/e/f"])
def test_an_event_name_may_hold_what_the_page_says(tight, name):
    assert tight.call("POST", "/events", {"name": name}).status_code == 200


def test_an_event_name_with_anything_else_is_told_what_it_may_hold(tight):
    said = tight.call("POST", "/events", {"name": "a b/c"}).json()
    assert "use letters, digits, `_.-:` and a `/`" in json.dumps(said)


@pytest.mark.parametrize("many", [False, True])
def test_what_tidegate_itself_sends_nobody_else_may(tight, many):
    event = {"name": "tidegate/function.failed", "data": {"function_id": "forged"}}
    answer = tight.call("POST", "/events", [{"name": "a/b"}, event] if many else event)
    said = answer.json()
    assert (answer.status_code, said["code"]) == (400, "invalid_event")
    assert "what begins with `tidegate/` is sent by Tidegate alone" in json.dumps(said)
    assert tight.get("/events/count?name=tidegate/function.failed")["count"] == 0
