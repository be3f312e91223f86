"""Sources, secrets and keys changed over real HTTP while two gateways live, and who may not."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tests.processes import API_KEY, Site, free_port, post, site, stripe_delivery, until

AUTH = {"Authorization": f"Bearer {API_KEY}"}


@pytest.fixture(scope="module")
def other_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, other_port: int) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("site"), settings={"TIDEGATE_PUBLIC_URL": "https://hooks.example.com"}) as made:
        made.run("migrate")
        made.start("gateway")
        made.start("gateway", port=other_port)
        made.start("worker")
        made.wait_ready()
        made.wait_ready(other_port)
        yield made


def call(served: Site, method: str, path: str, body: object = None, key: str = API_KEY, **headers: str) -> httpx.Response:
    url = served.url() + "/api/v1" + path
    return httpx.request(method, url, json=body, headers={"Authorization": f"Bearer {key}", **headers}, timeout=10)


def arrive(served: Site, source: str, secret: str, key: str, port: int | None = None) -> int:
    body, headers = stripe_delivery(key, secret=secret)
    return httpx.post(f"{served.url(port)}/webhooks/{source}", content=body, headers=headers, timeout=10).status_code


def soon(minutes: int = 60) -> str:
    return (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat()


def make_key(served: Site, *scopes: str, expires_at: str | None = None) -> tuple[str, str]:
    made = call(served, "POST", "/keys", {"name": "test", "scopes": scopes, "expires_at": expires_at}).json()
    return made["id"], made["key"]


def test_a_source_made_through_the_api_is_served_by_every_gateway_within_a_second(served, other_port):
    made = call(served, "POST", "/sources", {"name": "shop", "provider": "stripe", "secrets": ["whsec_shop"]})
    assert made.status_code == 201
    source = made.json()
    assert (source["origin"], source["enabled"], source["url"]) == ("api", True, "https://hooks.example.com/webhooks/shop")
    assert "whsec_shop" not in made.text
    assert arrive(served, "shop", "whsec_shop", "evt_shop_1") == 200
    time.sleep(1)
    assert arrive(served, "shop", "whsec_shop", "evt_shop_2", other_port) == 200
    assert call(served, "POST", "/sources", {"name": "shop", "provider": "stripe"}).status_code == 409


def test_a_rotation_takes_both_secrets_until_the_old_one_ends_and_shows_which_was_used(served, other_port):
    call(served, "POST", "/sources", {"name": "rotated", "provider": "stripe", "secrets": ["whsec_old"]})
    body = {"secret": "whsec_new", "expire_others_at": soon()}
    assert call(served, "POST", "/sources/rotated/secrets", body).status_code == 201
    assert arrive(served, "rotated", "whsec_old", "evt_old") == 200
    assert arrive(served, "rotated", "whsec_new", "evt_new") == 200
    until(lambda: all(s["last_used_at"] for s in served.get("/sources/rotated")["secrets"]))
    old, new = served.get("/sources/rotated")["secrets"]
    assert old["expires_at"] is not None
    assert (new["n"], new["expires_at"], new["live"]) == (1, None, True)
    event = served.get("/requests?source=rotated")["data"][0]
    assert event["secret"] == 1
    assert call(served, "DELETE", "/sources/rotated/secrets/0").status_code == 200
    assert arrive(served, "rotated", "whsec_old", "evt_late") == 401
    time.sleep(1)
    assert arrive(served, "rotated", "whsec_old", "evt_late", other_port) == 401
    short = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    assert call(served, "PATCH", "/sources/rotated/secrets/1", {"expires_at": short}).status_code == 200
    assert arrive(served, "rotated", "whsec_new", "evt_last") == 200
    until(lambda: arrive(served, "rotated", "whsec_new", "evt_last") == 401)


def test_a_disabled_source_answers_as_an_unknown_one_and_comes_back(served, other_port):
    call(served, "POST", "/sources", {"name": "dozing", "provider": "stripe", "secrets": ["whsec_d"]})
    assert call(served, "POST", "/sources/dozing/disable").json()["enabled"] is False
    assert arrive(served, "dozing", "whsec_d", "evt_d") == 404
    until(lambda: arrive(served, "dozing", "whsec_d", "evt_d", other_port) == 404, 2)
    assert call(served, "POST", "/sources/dozing/enable").json()["enabled"] is True
    assert arrive(served, "dozing", "whsec_d", "evt_d") == 200
    assert call(served, "DELETE", "/sources/dozing").status_code == 204
    assert arrive(served, "dozing", "whsec_d", "evt_d") == 404
    assert call(served, "GET", "/sources/dozing").status_code == 404
    assert served.get("/requests?source=dozing")["data"]


def test_what_is_configured_is_shown_as_such_and_changed_only_there(served):
    source = served.get("/sources/stripe")
    assert source["origin"] == "STRIPE_WEBHOOK_SECRET"
    for method, path, body in [
        ("PATCH", "/sources/stripe", {"enabled": False}),
        ("DELETE", "/sources/stripe", None),
        ("POST", "/sources/stripe/secrets", {"secret": "whsec_more"}),
        ("DELETE", "/sources/stripe/secrets/0", None),
    ]:
        answer = call(served, method, path, body)
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
        assert "configured by STRIPE_WEBHOOK_SECRET" in answer.json()["detail"]


def test_a_change_to_what_somebody_else_has_changed_since_is_refused(served):
    call(served, "POST", "/sources", {"name": "tagged", "provider": "stripe", "secrets": ["whsec_t"]})
    first = call(served, "GET", "/sources/tagged").headers["etag"]
    assert call(served, "POST", "/sources/tagged/disable", **{"If-Match": first}).status_code == 200
    stale = call(served, "POST", "/sources/tagged/enable", **{"If-Match": first})
    assert (stale.status_code, stale.json()["code"]) == (412, "precondition_failed")
    assert call(served, "GET", "/sources/tagged").json()["enabled"] is False


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"name": "UPPER", "provider": "stripe"}, "/name"),
        ({"name": "x", "provider": "stripe", "secrets": [""]}, None),
        ({"name": "x", "provider": "stripe", "colour": 1}, None),
    ],
)
def test_a_source_that_cannot_be_is_refused_with_its_member(served, body, pointer):
    answer = call(served, "POST", "/sources", body)
    assert answer.status_code == 400
    assert pointer is None or answer.json()["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize(
    ("method", "path", "needs"),
    [
        ("POST", "/sources", "admin"),
        ("POST", "/keys", "admin"),
        ("GET", "/keys", "admin"),
        ("POST", "/events", "send"),
        ("POST", "/events/evt_1/replay", "replay"),
    ],
)
def test_a_key_without_the_scope_is_told_which_one_is_missing(served, method, path, needs):
    _, key = make_key(served, "read")
    answer = call(served, method, path, {}, key)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert needs in answer.json()["detail"]
    assert call(served, "GET", "/events", None, key).status_code == 200


def test_a_call_without_a_key_or_with_a_void_one_gets_a_401(served, other_port):
    assert httpx.get(served.url() + "/api/v1/events").status_code == 401
    key_id, key = make_key(served, "read")
    assert call(served, "GET", "/events", None, key).status_code == 200
    until(lambda: any(k["id"] == key_id and k["last_used_at"] for k in served.get("/keys")["data"]))
    assert call(served, "DELETE", f"/keys/{key_id}").status_code == 204
    assert call(served, "GET", "/events", None, key).status_code == 401
    url = served.url(other_port) + "/api/v1/events"
    until(lambda: httpx.get(url, headers={"Authorization": f"Bearer {key}"}).status_code == 401, 2)
    assert call(served, "DELETE", f"/keys/{key_id}").status_code == 404


def test_a_key_ends_when_it_says_and_is_kept_only_as_a_hash(served):
    short = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    _, key = make_key(served, "read", expires_at=short)
    assert call(served, "GET", "/events", None, key).status_code == 200
    until(lambda: call(served, "GET", "/events", None, key).status_code == 401, 5)
    files = b"".join(path.read_bytes() for path in served.folder.rglob("tidegate.db*"))
    assert files
    assert key.encode() not in files
    assert b"whsec_" not in files


def test_a_sample_sent_by_the_api_runs_the_functions(served):
    answer = call(served, "POST", "/sources/stripe/test", {"type": "charge.succeeded"})
    assert answer.status_code == 200
    event_id = answer.json()["id"]
    until(lambda: {d["status"] for d in served.get(f"/events/{event_id}/deliveries")["data"]} == {"succeeded"})


def test_the_cli_makes_changes_and_removes_sources_and_keys(served):
    def tidegate(*words: str) -> dict | str:
        (served.folder / f"{words[0]}.log").unlink(missing_ok=True)
        done = served.run(*words)
        assert done.returncode == 0, done.stdout
        return json.loads(done.stdout) if "--json" in words else done.stdout

    made = tidegate("sources", "add", "cli", "--provider", "stripe", "--secret", "whsec_cli", "--json")
    assert made["secrets"][0]["live"] is True
    assert arrive(served, "cli", "whsec_cli", "evt_cli") == 200
    assert "https://hooks.example.com/webhooks/cli" in tidegate("sources", "show", "cli")
    rotated = tidegate("sources", "add-secret", "cli", "--secret", "whsec_cli2", "--expire-others", "24h", "--json")
    assert [secret["expires_at"] is None for secret in rotated["secrets"]] == [False, True]
    assert len(tidegate("sources", "remove-secret", "cli", "0", "--json")["secrets"]) == 1
    tidegate("sources", "disable", "cli")
    tidegate("sources", "delete", "cli", "--yes")
    assert arrive(served, "cli", "whsec_cli2", "evt_cli") == 404
    key = tidegate("keys", "add", "ci", "--scope", "read", "--expires-in", "90d", "--json")
    assert call(served, "GET", "/runs", None, key["key"]).status_code == 200
    tidegate("keys", "revoke", key["id"])
    assert call(served, "GET", "/runs", None, key["key"]).status_code == 401


def test_a_key_or_an_address_that_is_wrong_is_told_with_what_to_do_about_it(served):
    settings = dict(served.settings)

    def said(code: int, *words: str, **changed: str) -> str:
        served.settings.update(changed)
        try:
            return " ".join(served.cli(*words, code=code).split())
        finally:
            served.settings.clear()
            served.settings.update(settings)

    wrong = {"TIDEGATE_API_KEY": "tg_wrong_but_long_enough"}
    assert "(unauthorized); correct TIDEGATE_API_KEY, or unset it" in said(1, "events", **wrong)
    assert "correct TIDEGATE_API_KEY" in said(1, "doctor", **wrong)
    other = {"TIDEGATE_API_KEY": "", "TIDEGATE_MASTER_KEY": "another-master-key"}
    assert "TIDEGATE_MASTER_KEY is not the master key that this gateway runs with" in said(1, "events", **other)
    nowhere = {"TIDEGATE_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing"}
    assert "and is TIDEGATE_DATABASE_URL right?" in said(1, "migrate", **nowhere)
    assert "and is TIDEGATE_DATABASE_URL right?" in said(1, "doctor", **nowhere)


def test_the_doctor_finds_what_nobody_runs_and_secrets_that_cannot_be_read(tmp_path):
    with site(tmp_path) as made:
        made.run("migrate")
        made.start("gateway")
        worker = made.start("worker")
        made.wait_ready()
        until(lambda: made.get("/functions")["data"])
        assert "WRONG" not in made.cli("doctor")
        worker.terminate()
        worker.wait()
        assert post(made.url(), "evt_due").status_code == 200
        assert "no worker is alive to run what is due" in made.cli("doctor", code=1)
        made.stop()
        assert f"WRONG  no gateway answers at {made.url()}" in made.cli("doctor", code=1)
        made.settings |= {"STRIPE_WEBHOOK_SECRET": "", "TIDEGATE_MASTER_KEY": "another-master-key"}
        assert "source stripe (STRIPE_WEBHOOK_SECRET): the stored secrets were encrypted under" in made.cli("doctor", code=1)
