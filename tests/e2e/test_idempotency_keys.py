"""`Idempotency-Key`: a POST that is sent again is carried out once."""

from __future__ import annotations

import sqlite3
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tests.processes import API_KEY, post, site, until


def count(many, name: str) -> int:
    return many.site.get(f"/events/count?name={name}")["count"]


def test_the_same_key_and_body_get_the_first_answer_again_from_every_gateway(many):
    key, body = str(uuid.uuid4()), {"name": "idem/once", "data": {"n": 1}}
    answers = [many.site.call("POST", "/events", body, port=port, Idempotency_Key=key) for port in (*many.ports, *many.ports)]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert len({answer.text for answer in answers}) == 1
    assert [answer.headers.get("idempotent-replayed") for answer in answers] == [None, "true", "true", "true"]
    assert {answer.headers["content-type"] for answer in answers} == {"application/json"}
    assert count(many, "idem/once") == 1


def test_the_same_key_with_another_body_or_path_is_a_422(many):
    key = str(uuid.uuid4())
    assert many.site.call("POST", "/events", {"name": "idem/a"}, Idempotency_Key=key).status_code == 200
    for path, body in (("/events", {"name": "idem/b"}), ("/events?x=1", {"name": "idem/a"}), ("/keys", {"name": "idem/a"})):
        answer = many.site.call("POST", path, body, Idempotency_Key=key)
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_mismatch")
    assert count(many, "idem/b") == 0


def test_a_refusal_is_kept_too_and_a_missing_scope_is_not(many, key_of):
    key = str(uuid.uuid4())
    first, again = (many.site.call("POST", "/events", {"name": "no slash"}, Idempotency_Key=key) for _ in range(2))
    assert (first.status_code, again.status_code, again.text) == (400, 400, first.text)
    assert again.headers["content-type"] == "application/problem+json"
    reader = key_of("read")
    for _ in range(2):
        refused = many.site.call("POST", "/events", {"name": "idem/scope"}, key=reader, Idempotency_Key=key)
        assert (refused.status_code, refused.headers.get("idempotent-replayed")) == (403, None)


def test_keys_of_different_callers_are_different(many, key_of):
    key, body = str(uuid.uuid4()), {"name": "idem/callers"}
    ids = {many.site.call("POST", "/events", body, key=caller, Idempotency_Key=key).json()["id"] for caller in (key_of("send"), API_KEY)}
    assert len(ids) == 2


def test_a_caller_whose_key_has_ended_is_not_shown_the_answer_again(many, key_of):
    caller = key_of("send", expires_at=(datetime.now(UTC) + timedelta(seconds=1.5)).isoformat())
    key = str(uuid.uuid4())
    assert many.site.call("POST", "/events", {"name": "idem/ended"}, key=caller, Idempotency_Key=key).status_code == 200
    until(lambda: many.site.call("POST", "/events", {"name": "idem/ended"}, key=caller, Idempotency_Key=key).status_code == 401, 5)


def test_while_the_first_is_served_the_others_get_a_409_and_it_happens_once(many):
    key = str(uuid.uuid4())
    batch = [{"name": "idem/race", "data": {"n": n}} for n in range(2000)]
    with ThreadPoolExecutor(8) as pool:
        ports = many.ports * 4
        answers = list(pool.map(lambda port: many.site.call("POST", "/events", batch, port=port, Idempotency_Key=key), ports))
    codes = [answer.status_code for answer in answers]
    assert set(codes) == {200, 409}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"idempotency_in_progress"}
    assert len({answer.text for answer in answers if answer.status_code == 200}) == 1
    assert count(many, "idem/race") == 2000


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_that_is_none_is_refused_and_the_answer_says_what_one_is(many, key):
    answer = many.site.call("POST", "/events", {"name": "idem/none"}, Idempotency_Key=key)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert "1 to 255" in answer.json()["detail"]


def test_g8_the_answer_that_shows_a_new_api_key_is_replayed_and_kept_sealed_across_a_restart(tmp_path):
    with site(tmp_path) as made:
        made.run("migrate")
        process = made.start("gateway")
        made.wait_ready()
        body = {"name": "ci", "scopes": ["read"]}
        first = made.call("POST", "/keys", body, Idempotency_Key="make-it-once")
        process.terminate()
        process.wait(15)
        made.processes.remove(process)
        with sqlite3.connect(made.folder / "data" / "tidegate.db") as database:
            assert database.execute("select count(*) from answers where status = 201").fetchone() == (1,)
        database.close()
        files = b"".join(path.read_bytes() for path in (made.folder / "data").glob("tidegate.db*"))
        assert first.json()["key"].encode() not in files
        made.start("gateway")
        made.wait_ready()
        again = made.call("POST", "/keys", body, Idempotency_Key="make-it-once")
        assert (again.status_code, again.text, again.headers["idempotent-replayed"]) == (201, first.text, "true")
        assert len(made.get("/keys")["data"]) == 1
        assert post(made.url(), "evt_after").status_code == 200
        assert httpx.get(made.url() + "/healthz").status_code == 200
