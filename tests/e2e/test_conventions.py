"""What holds for every call of the API: filters, cursors, counts, tags, limits, ids and traces."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.processes import API_KEY, HTTP, post, until

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PAGING = {"limit", "cursor", "include"}
# list -> filter -> the member of a row that it is about
FILTERS = {
    "/events": {"name": "name", "event": "name", "source": "source", "key": "key", "since": "received_at", "until": "received_at"},
    "/requests": {
        "status": "status", "source": "source", "reason": "reason", "event": "event_id",
        "since": "received_at", "until": "received_at",
    },
    "/runs": {
        "status": "status", "function": "function_id", "event": "event_name", "event_id": "event_id",
        "since": "created_at", "until": "created_at",
    },
    "/deliveries": {
        "status": "status", "function": "function_id", "event": "event_name", "event_id": "event_id", "source": "source",
        "since": "received_at", "until": "received_at",
    },
}  # fmt: skip


def whole(many, path: str, limit: int = 200, **parameters: Any) -> list[dict]:
    """Every row of a list, page by page."""
    rows: list[dict] = []
    cursor = None
    while True:
        query = {**parameters, "limit": limit, **({"cursor": cursor} if cursor else {})}
        page = ask(many, path, query).json()
        rows += page["data"]
        cursor = page["next_cursor"]
        if cursor is None:
            return rows


def ask(many, path: str, query: dict[str, Any] | None = None) -> httpx.Response:
    return HTTP.get(f"{many.site.url()}/api/v1{path}", params=query, headers={"Authorization": f"Bearer {API_KEY}"})


@pytest.fixture(scope="module")
def document(many) -> dict:
    return httpx.get(many.site.url() + "/schema/openapi.json").json()


@pytest.fixture(scope="module")
def until_time(many) -> str:
    """Rows of many kinds, and the time they end at: other tests may add more."""
    for n in range(4):
        for name in ("own/fail", "own/trace", "filter/one", "filter/two_x", "filter/twoXx"):
            many.site.call("POST", "/events", {"name": name, "data": {"n": n}, "id": f"{name}:{n}"}).raise_for_status()
        assert post(many.site.url(), f"evt_filter_{n}").status_code == 200
        assert post(many.site.url(), f"evt_filter_{n}").json()["duplicate"] is True
        assert post(many.site.url(), f"evt_filter_{n}", secret="wrong").status_code == 401
        HTTP.post(many.site.url() + "/webhooks/github", content=b"{}")
        time.sleep(0.01)  # so that times differ
    until(lambda: {run["status"] for run in whole(many, "/runs")} <= {"succeeded", "failed"})
    until(lambda: {row["reason"] for row in whole(many, "/requests")} >= {"no_match", "missing_header"})
    end = max(row["received_at"] for row in whole(many, "/requests"))
    return end[:-1] + "1Z"


def rows_of(many, path: str, end: str) -> list[dict]:
    rows = whole(many, path, until=end)
    if path == "/deliveries":
        events = {event["id"]: event for event in whole(many, "/events", until=end)}
        for row in rows:
            event = events[row["event_id"]]
            row.update(event_name=event["name"], source=event["source"], received_at=event["received_at"])
    return rows


def identity(row: dict) -> tuple:
    return row.get("id") or (row["event_id"], row["function_id"], row["replay_id"])


def expected(rows: list[dict], member: str, name: str, values: list[str]) -> list[tuple]:
    def fits(row: dict) -> bool:
        if name in ("since", "until"):
            return row[member] >= values[0] if name == "since" else row[member] < values[0]
        return any(row[member] is not None and (row[member] == v or (v[-1] == "*" and row[member].startswith(v[:-1]))) for v in values)

    return [identity(row) for row in rows if fits(row)]


def cases(rows: list[dict], filters: dict[str, str]) -> Iterator[tuple[str, str, list[str]]]:
    for name, member in filters.items():
        found = sorted({row[member] for row in rows if row[member] is not None})
        if name in ("since", "until"):
            yield name, member, [found[len(found) // 2]]
            continue
        assert len(found) > 1, (name, "nothing to choose from")
        yield name, member, [found[0]]
        yield name, member, [found[0], found[-1]]
        if name != "status":
            yield name, member, [found[-1][:-2] + "*"]
            yield name, member, ["nothing of this name"]


@pytest.mark.parametrize("path", FILTERS)
def test_every_filter_of_every_list_filters_and_the_count_is_that_of_the_list(many, document, until_time, path):
    named = {parameter["name"] for parameter in document["paths"][f"/api/v1{path}"]["get"]["parameters"]}
    assert named - PAGING == set(FILTERS[path]), "a filter without a test, or a test without a filter"
    counted = {parameter["name"] for parameter in document["paths"][f"/api/v1{path}/count"]["get"]["parameters"]}
    assert counted == set(FILTERS[path])
    rows = rows_of(many, path, until_time)
    for name, member, values in cases(rows, FILTERS[path]):
        query = {"until": until_time, name: values}
        wanted = expected(rows, member, name, values)
        assert [identity(row) for row in whole(many, path, **query)] == wanted, (name, values)
        assert ask(many, f"{path}/count", query).json() == {"count": len(wanted), "capped": False}, (name, values)


def test_filters_of_different_names_must_all_hold(many, until_time):
    found = whole(many, "/runs", function="fail", status=["failed", "succeeded"], event="own/*", until=until_time)
    assert found
    assert {(run["function_id"], run["status"]) for run in found} == {("fail", "failed")}
    assert whole(many, "/runs", function="fail", status="succeeded", until=until_time) == []


def test_what_is_special_to_a_like_is_itself_in_a_filter(many, until_time):
    assert {row["name"] for row in whole(many, "/events", name="filter/two_*", until=until_time)} == {"filter/two_x"}
    assert whole(many, "/events", name="filter/%", until=until_time) == []


@pytest.mark.parametrize("path", FILTERS)
def test_pages_hold_every_row_once_while_others_are_added_and_lead_back(many, until_time, path):
    before = [identity(row) for row in whole(many, path)]
    seen: list[list[tuple]] = []
    page = ask(many, path, {"limit": 7}).json()
    for n in itertools.count():
        seen.append([identity(row) for row in page["data"]])
        assert page["has_more"] is (page["next_cursor"] is not None)
        if page["next_cursor"] is None:
            break
        if n < 3:
            post(many.site.url(many.ports[n % 2]), f"evt_{path}_{n}_{time.time_ns()}")
        page = ask(many, path, {"limit": 7, "cursor": page["next_cursor"]}).json()
    flat = [row for rows in seen for row in rows]
    assert flat == before
    for wanted in seen[-2::-1]:
        page = ask(many, path, {"limit": 7, "cursor": page["prev_cursor"]}).json()
        assert [identity(row) for row in page["data"]] == wanted
    newer = ask(many, path, {"limit": 200, "cursor": page["prev_cursor"]}).json()
    assert newer["data"], "what was added is newer than the first page"
    assert not {identity(row) for row in newer["data"]} & set(flat)


def test_a_parameter_that_is_not_there_is_refused_by_every_operation_and_the_answer_names_those_that_are(many, document):
    for path, item in document["paths"].items():
        for method, operation in item.items() if path.startswith("/api/") else ():
            url = many.site.url() + path.replace("{n}", "1").replace("{", "").replace("}", "") + "?colour=red"
            answer = HTTP.request(method, url, headers={"Authorization": f"Bearer {API_KEY}"})
            assert (answer.status_code, answer.json()["code"]) == (400, "unknown_parameter"), (method, path, answer.text)
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "query":
                    assert parameter["name"] in answer.json()["detail"]


def test_a_tag_protects_a_source_from_changes_that_have_not_seen_the_last_one(many):
    made = many.site.call("POST", "/sources", {"name": "etagged", "provider": "stripe", "secrets": ["whsec_t"]})
    first = made.headers["etag"]
    assert many.site.call("GET", "/sources/etagged").headers["etag"] == first
    until(lambda: many.site.call("GET", "/sources/etagged", port=many.ports[1]).status_code == 200, 1)
    changed = many.site.call("PATCH", "/sources/etagged", {"enabled": False}, port=many.ports[1], If_Match=first)
    assert changed.status_code == 200
    assert changed.headers["etag"] != first
    until(lambda: many.site.call("GET", "/sources/etagged").headers["etag"] == changed.headers["etag"], 1)
    for method, path, body in [
        ("PATCH", "", {"enabled": True}),
        ("POST", "/enable", None),
        ("POST", "/disable", None),
        ("POST", "/secrets", {"secret": "whsec_u"}),
        ("PATCH", "/secrets/0", {"expires_at": None}),
        ("DELETE", "/secrets/0", None),
        ("DELETE", "", None),
    ]:
        stale = many.site.call(method, f"/sources/etagged{path}", body, If_Match=first)
        assert (stale.status_code, stale.json()["code"]) == (412, "precondition_failed"), (method, path)
    assert many.site.call("DELETE", "/sources/etagged", If_Match=changed.headers["etag"]).status_code == 204


def test_a_request_id_is_echoed_or_made(many):
    given = many.site.call("GET", "/runs/run_none", X_Request_Id="my-own-id:7")
    assert given.headers["x-request-id"] == given.json()["request_id"] == "my-own-id:7"
    for bad in ("two words", "x" * 129, "a\tb"):
        made = many.site.call("GET", "/runs/run_none", X_Request_Id=bad)
        assert made.headers["x-request-id"] == made.json()["request_id"] != bad
        assert made.headers["x-request-id"].startswith("req_")
    webhook = post(many.site.url(), "evt_request_id")
    assert many.site.get(f"/events/{webhook.json()['id']}")["request_id"] == webhook.headers["x-request-id"]


def output_of(many, event_id: str) -> Any:
    until(lambda: many.site.get(f"/runs?event_id={event_id}&function=trace&status=succeeded")["data"])
    [run] = many.site.get(f"/runs?event_id={event_id}&function=trace")["data"]
    return many.site.get(f"/runs/{run['id']}")["output"]


@pytest.mark.parametrize(("given", "handed"), [(TRACE, TRACE), ("00-nonsense", None), (None, None)])
def test_a_traceparent_is_kept_and_handed_to_the_function(many, given, handed):
    headers = {} if given is None else {"traceparent": given}
    sent = many.site.call("POST", "/events", {"name": "own/trace", "data": {"n": 1}}, **headers).json()["id"]
    invoked = many.site.call("POST", "/functions/trace/invoke", {}, **headers).json()["id"]
    for event_id in (sent, invoked):
        assert many.site.get(f"/events/{event_id}")["traceparent"] == handed
        assert output_of(many, event_id) == handed


def test_calls_beyond_the_allowance_are_a_429_that_says_when_to_go_on_and_others_are_not_affected(tight):
    key = tight.call("POST", "/keys", {"name": "eager", "scopes": ["read"]}).json()["key"]
    with httpx.Client(headers={"Authorization": f"Bearer {key}"}) as client:
        answers = [client.get(tight.url() + "/api/v1/functions") for _ in range(302)]
    assert [answer.status_code for answer in answers[:300]] == [200] * 300
    left = [int(answer.headers["ratelimit-remaining"]) for answer in answers]
    assert left == [*range(299, -1, -1), 0, 0]
    assert {answer.headers["ratelimit-limit"] for answer in answers} == {"300"}
    for answer in answers[300:]:
        assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
        assert 1 <= int(answer.headers["retry-after"]) == int(answer.headers["ratelimit-reset"]) <= 61
    assert tight.call("GET", "/functions").status_code == 200
    assert post(tight.url(), "evt_not_limited").status_code == 200
