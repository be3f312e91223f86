"""Who may call what: for every operation of the OpenAPI document, so that a new one cannot be forgotten."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from gateway.api.deps import SCOPES
from tests.processes import HTTP, until

PUBLIC = {("GET", "/healthz"), ("GET", "/readyz")}
NEEDS = re.compile(r"needs an API key with the scope `([a-z:]+)`")
# What each kind of call is for; a route whose scope changes by mistake differs from its like.
EXPECTED = {
    ("POST", "/api/v1/events"): "send",
    ("GET", "/api/v1/events"): "read",
    ("GET", "/api/v1/requests/{request_id}/raw"): "payload:read",
    ("POST", "/api/v1/runs/{run_id}/cancel"): "replay",
    ("POST", "/api/v1/sources"): "admin",
    ("GET", "/api/v1/keys"): "admin",
    ("GET", "/metrics"): "read",
}


@pytest.fixture(scope="module")
def operations(many) -> list[tuple[str, str]]:
    document = httpx.get(many.site.url() + "/schema/openapi.json").json()
    found = [(method.upper(), path) for path, item in document["paths"].items() for method in item]
    assert len(found) > 40
    return found


@pytest.fixture(scope="module")
def keys(many) -> dict[str, str]:
    made = {scope: many.site.call("POST", "/keys", {"name": scope, "scopes": [scope]}).json()["key"] for scope in SCOPES}
    return {**made, "all but admin": many.site.call("POST", "/keys", {"name": "4", "scopes": SCOPES[:-1]}).json()["key"]}


def ask(many, method: str, path: str, key: str | None = None) -> httpx.Response:
    url = many.site.url() + re.sub(r"\{(\w+)\}", lambda match: "1" if match[1] == "n" else "nothing-of-this-id", path)
    return HTTP.request(method, url, headers={} if key is None else {"Authorization": f"Bearer {key}"})


def guarded(operations) -> Iterator[tuple[str, str]]:
    return (operation for operation in operations if operation not in PUBLIC)


def test_every_operation_without_a_key_or_with_a_wrong_one_is_a_401_that_says_what_to_send(many, operations):
    for method, path in guarded(operations):
        for key in (None, "tg_nonsense"):
            answer = ask(many, method, path, key)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), (method, path, answer.text)
            assert answer.headers["www-authenticate"] == "Bearer"
        assert "Authorization: Bearer" in ask(many, method, path).json()["detail"]


def test_every_operation_names_the_scope_that_is_missing_and_that_scope_alone_is_enough(many, operations, keys):
    needed: dict[tuple[str, str], str] = {}
    for method, path in guarded(operations):
        refused = [answer for scope in ("read", "send") if (answer := ask(many, method, path, keys[scope])).status_code == 403]
        assert refused, (method, path, "any key will do")
        named = {found[1] for answer in refused if (found := NEEDS.search(answer.json()["detail"]))}
        assert len(named) == 1, (method, path, [answer.text for answer in refused])
        scope = needed[method, path] = named.pop()
        others = [other for other in SCOPES if other not in (scope, "admin")]
        assert {ask(many, method, path, keys[other]).status_code for other in others} == {403}, (method, path)
        for enough in (scope, "admin"):
            assert ask(many, method, path, keys[enough]).status_code not in (401, 403), (method, path, enough)
    assert EXPECTED.items() <= needed.items()
    changes = {(method, path) for method, path in needed if method in ("PUT", "PATCH", "DELETE")}
    assert {needed[operation] for operation in changes} == {"admin"}
    assert {operation for operation, scope in needed.items() if operation[0] == "POST" and scope == "read"} == set()


def test_health_needs_no_key_and_tells_strangers_nothing(many):
    for method, path in PUBLIC:
        assert ask(many, method, path).status_code == 200
    assert "master" not in ask(many, "GET", "/readyz").text


@pytest.mark.parametrize("scope", ["read", "send", "replay"])
def test_headers_and_payloads_are_for_keys_that_may_read_them(many, keys, scope):
    event = many.site.call("POST", "/events", {"name": "scope/payload", "data": {"pin": "only-for-payload-readers"}}).json()
    path = f"/events/{event['id']}"
    assert "only-for-payload-readers" not in many.site.call("GET", path, key=keys[scope]).text
    assert many.site.call("GET", "/events?include=payload", key=keys[scope]).status_code == 403
    assert many.site.call("GET", "/requests?include=headers", key=keys[scope]).status_code == 403
    assert "only-for-payload-readers" in many.site.call("GET", path, key=keys["all but admin"]).text


def test_a_key_that_has_ended_or_was_removed_is_void_on_every_gateway_within_a_second(many):
    end = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    short = many.site.call("POST", "/keys", {"name": "short", "scopes": ["read"], "expires_at": end}).json()
    removed = many.site.call("POST", "/keys", {"name": "removed", "scopes": ["read"]}).json()
    for key in (short["key"], removed["key"]):
        until(lambda key=key: many.site.call("GET", "/runs", key=key, port=many.ports[1]).status_code == 200, 1)
    assert many.site.call("DELETE", f"/keys/{removed['id']}").status_code == 204
    assert many.site.call("GET", "/runs", key=removed["key"]).status_code == 401
    until(lambda: many.site.call("GET", "/runs", key=removed["key"], port=many.ports[1]).status_code == 401, 1)
    until(lambda: many.site.call("GET", "/runs", key=short["key"]).status_code == 401, 2)
    ended = many.site.call("GET", "/runs", key=short["key"], port=many.ports[1])
    assert (ended.status_code, "expired" in ended.json()["detail"]) == (401, True)
    shown = {key["id"]: key for key in many.site.get("/keys")["data"]}
    assert removed["id"] not in shown
    assert "key" not in shown[short["id"]]
