"""The product over real HTTP, as the third party, the operator and the author meet it."""

from __future__ import annotations

import json
import socket
import urllib.parse
from collections.abc import Iterator

import httpx
import pytest

from tests.processes import API_KEY, Site, post, site, stripe_delivery, until

FUNCTIONS = """
from datetime import timedelta
from gateway import Context, NonRetriableError, RetryAfterError, function
from providers.stripe import ChargeSucceeded, InvoicePaid

@function(on=ChargeSucceeded)
async def typed(ctx: Context[ChargeSucceeded]) -> str:
    return ctx.event.data.object.id

@function(on="own/retry", retries=3)
def retried(ctx: Context) -> int:
    if ctx.attempt < 3:
        raise RetryAfterError(timedelta(milliseconds=20), "not yet")
    return ctx.attempt

@function(on="own/never")
async def never(ctx: Context) -> None:
    raise NonRetriableError("this can never work")

@function(on="own/slow", timeout=0.1, retries=0)
async def slow(ctx: Context) -> None:
    import asyncio
    await asyncio.sleep(30)

@function(on="own/gone", retries=0)
async def gone(ctx: Context) -> None:
    import asyncio
    raise asyncio.CancelledError

@function(on="own/*", if_="event.data.n > 3")
async def conditional(ctx: Context) -> object:
    return ctx.event.data
"""

AUTH = {"Authorization": f"Bearer {API_KEY}"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with site(folder, functions=FUNCTIONS, settings={"GITHUB_WEBHOOK_SECRET": "gh-test", "TIDEGATE_MAX_BODY_BYTES": "100000"}) as made:
        (folder / "functions" / "broken_one.py").write_text("def broken(:\n")
        clash = 'from gateway import function\n\n@function(on="x/y")\nasync def typed(ctx): ...\n'
        (folder / "functions" / "zz_clash.py").write_text(clash)
        made.start("serve")
        made.wait_ready()
        yield made


def send(served: Site, name: str, data: str = "{}") -> str:
    body = f'{{"name": "{name}", "data": {data}}}'
    return httpx.post(served.url() + "/api/v1/events", content=body, headers=AUTH).json()["id"]


def final(served: Site, event_id: str) -> dict[str, dict]:
    def deliveries() -> list[dict]:
        return served.get(f"/events/{event_id}/deliveries")["data"]

    until(lambda: all(d["status"] in ("succeeded", "failed", "skipped") for d in deliveries()))
    return {d["function_id"]: d for d in deliveries()}


def test_a_stripe_delivery_is_answered_with_its_event_and_runs_typed(served):
    body, headers = stripe_delivery("evt_typed", "charge.succeeded")
    body = body.replace(b'"in_1"', b'"ch_1", "amount": 5, "currency": "eur"')
    from gateway.sdk.scheme import Hmac, Items

    scheme = Hmac(header="Stripe-Signature", content="{timestamp}.{body}", items=Items(timestamp="t", signature="v1"))
    import time

    headers = dict(scheme.sign(body, "whsec_test_not_a_real_secret", int(time.time())))
    answer = httpx.post(served.url() + "/webhooks/stripe", content=body, headers=headers)
    assert answer.status_code == 200
    assert answer.json()["duplicate"] is False
    found = final(served, answer.json()["id"])
    assert served.get(f"/runs/{found['typed']['run_id']}")["output"] == "ch_1"


def test_a_payload_that_does_not_fit_is_accepted_and_its_typed_run_fails_once_naming_the_path(served):
    answer = post(served.url(), "evt_misfit", type_="charge.succeeded")
    assert answer.status_code == 200
    delivery = final(served, answer.json()["id"])["typed"]
    assert (delivery["status"], delivery["attempts"]) == ("failed", 1)
    assert "amount" in delivery["error"]["message"]


def test_g2_the_second_delivery_has_the_first_id(served):
    first, second = (post(served.url(), "evt_twice").json() for _ in range(2))
    assert (second["id"], second["duplicate"]) == (first["id"], True)


@pytest.mark.parametrize("how", ["json", "form"])
def test_github_in_both_encodings_and_with_ping(served, how):
    from gateway.sdk.scheme import Hmac

    payload = json.dumps({"zen": "Keep it logically awesome.", "hook_id": 1, "how": how})
    body = payload.encode() if how == "json" else urllib.parse.urlencode({"payload": payload}).encode()
    kind = "application/json" if how == "json" else "application/x-www-form-urlencoded"
    headers = dict(Hmac(header="X-Hub-Signature-256", prefix="sha256=").sign(body, "gh-test", 0))
    headers |= {"X-GitHub-Event": "ping", "X-GitHub-Delivery": f"guid-{how}", "Content-Type": kind}
    answer = httpx.post(served.url() + "/webhooks/github", content=body, headers=headers)
    event = served.get(f"/events/{answer.json()['id']}")
    assert (event["name"], event["data"]["how"]) == ("github/ping", how)


def test_g7_every_failed_verification_has_the_same_answer_and_only_the_operator_sees_why(served):
    wrong = post(served.url(), "evt_x", secret="wrong")
    missing = httpx.post(served.url() + "/webhooks/stripe", content=b"{}")
    assert {wrong.status_code, missing.status_code} == {401}
    assert {r.json()["detail"] for r in (wrong, missing)} == {"The signature of this request could not be verified."}
    until(lambda: len(served.get("/requests?status=quarantined")["data"]) >= 2)
    reasons = {row["reason"] for row in served.get("/requests?status=quarantined")["data"]}
    assert {"no_match", "missing_header"} <= reasons


def test_g11_the_exact_bytes_can_be_downloaded(served):
    body, headers = stripe_delivery("evt_bytes")
    answer = httpx.post(served.url() + "/webhooks/stripe", content=body, headers=headers)
    event = served.get(f"/events/{answer.json()['id']}")
    raw = httpx.get(f"{served.url()}/api/v1/requests/{event['request_id']}/raw", headers=AUTH)
    assert raw.content == body
    assert raw.headers["x-content-type-options"] == "nosniff"


def test_g11_big_integers_key_order_and_duplicate_keys_survive(served):
    data = '{"z": 12345678901234567890, "a": 1.50, "a": 2, "s": "\\u0000"}'
    event_id = send(served, "own/exact", data)
    response = httpx.get(f"{served.url()}/api/v1/events/{event_id}", headers=AUTH)
    assert data.encode() in response.content


def test_g11_a_lone_surrogate_survives(served):
    event_id = send(served, "own/surrogate", '{"n": 4, "s": "\\ud800"}')
    delivery = final(served, event_id)["conditional"]
    assert delivery["status"] == "succeeded"
    assert b"ud800" in httpx.get(f"{served.url()}/api/v1/events/{event_id}", headers=AUTH).content


def test_refusals_are_typed_and_say_what_to_do(served):
    url = served.url()
    large = b"x" * 100_001
    cases = [
        (httpx.post(url + "/webhooks/nope"), 404, "unknown_source"),
        (httpx.get(url + "/webhooks/stripe"), 405, "method_not_allowed"),
        (httpx.post(url + "/webhooks/stripe", content=large), 413, "too_large"),
        (httpx.post(url + "/webhooks/stripe", content=iter([large])), 413, "too_large"),
        (httpx.post(url + "/webhooks/stripe", content=b"", headers={"Content-Encoding": "gzip"}), 415, "unsupported_media_type"),
        (httpx.get(url + "/api/v1/runs"), 401, "unauthorized"),
        (httpx.get(url + "/api/v1/runs", headers={"Authorization": "Bearer tg_wrong"}), 401, "unauthorized"),
        (httpx.get(url + "/api/v1/runs?colour=red", headers=AUTH), 400, "unknown_parameter"),
        (httpx.get(url + "/api/v1/runs?limit=1000", headers=AUTH), 400, "invalid_request"),
        (httpx.get(url + "/api/v1/runs?cursor=nonsense", headers=AUTH), 400, "invalid_cursor"),
        (httpx.get(url + "/api/v1/runs/run_x", headers=AUTH), 404, "not_found"),
        (httpx.post(url + "/api/v1/events", content=b"[{}]", headers=AUTH), 400, "invalid_event"),
        (httpx.post(url + "/api/v1/events", json={"name": "no slash"}, headers=AUTH), 400, "invalid_event"),
        (httpx.post(url + "/api/v1/events", content=b'{"name": "a/b", "id": "\\ud800"}', headers=AUTH), 400, "invalid_event"),
        (httpx.post(url + "/api/v1/events", content=b'{"name": "a/b", "data": "\xff"}', headers=AUTH), 400, "invalid_event"),
        (httpx.get(url + "/nowhere"), 404, "not_found"),
    ]
    for response, status, code in cases:
        assert response.status_code == status, (code, response.text)
        problem = response.json()
        assert response.headers["content-type"] == "application/problem+json"
        assert (problem["code"], problem["status"]) == (code, status)
        assert problem["request_id"] == response.headers["x-request-id"]


def test_bytes_that_are_no_http_do_not_end_the_gateway(served):
    for junk in (b"\x00" * 100, b"GET " + b"a" * 100_000, b"POST /webhooks/stripe HTTP/1.1\r\nContent-Length: -5\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", served.port), timeout=5) as connection:
            connection.sendall(junk)
    assert httpx.get(served.url() + "/healthz").json() == {"status": "ok"}


@pytest.mark.parametrize("path", ["/webhooks/stripe", "/api/v1/events"])
@pytest.mark.parametrize("length", ["0" * 5000 + "2", "1" * 5000])
def test_a_length_of_thousands_of_digits_is_no_fault_of_ours(served, path, length):
    with socket.create_connection(("127.0.0.1", served.port), timeout=5) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
        connection.sendall(head.encode() + b"{}")
        assert connection.recv(4096).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 401 ", b"HTTP/1.1 413 "))


@pytest.mark.parametrize(("odd", "plain"), [("nul\0key", r"nul\0key"), ("lone\ud800key", r"lone\ud800key"), ("both\\\0", r"both\\0")])
def test_g2_an_id_that_no_database_keeps_is_not_taken_for_another(served, odd, plain):
    ids = {odd, plain, "\uffff" + odd, "\uffff" + plain, odd.replace("\0", "\0\0")}
    answers = {key: post(served.url(), key).json() for key in ids}
    assert not any(answer["duplicate"] for answer in answers.values())
    assert len({answer["id"] for answer in answers.values()}) == len(answers)
    assert all(post(served.url(), key).json()["duplicate"] for key in ids)
    assert served.get(f"/events/{answers[plain]['id']}")["key"] == plain


def test_functions_retry_give_up_time_out_and_are_skipped_as_declared(served):
    events = {name: send(served, f"own/{name}", '{"n": 1}') for name in ("retry", "never", "slow", "gone")}
    retried = final(served, events["retry"])
    assert (retried["retried"]["status"], retried["retried"]["attempts"]) == ("succeeded", 3)
    assert (retried["conditional"]["status"], retried["conditional"]["skip_reason"]) == ("skipped", "if_false")
    never = final(served, events["never"])["never"]
    assert (never["status"], never["attempts"], never["error"]["type"]) == ("failed", 1, "NonRetriableError")
    gone = final(served, events["gone"])["gone"]
    assert (gone["status"], gone["attempts"], gone["error"]["type"]) == ("failed", 1, "CancelledError")
    slow = final(served, events["slow"])["slow"]
    assert (slow["status"], slow["error"]["type"]) == ("failed", "TimeoutError")


def test_a_mistake_in_one_file_is_named_and_the_rest_works(served):
    broken = httpx.get(served.url() + "/readyz", headers=AUTH).json()["broken"]
    assert {entry["message"] for entry in httpx.get(served.url() + "/readyz").json()["broken"]} == {None}
    found = {entry["file"]: entry["message"] for entry in broken}
    assert "SyntaxError" in found["functions/broken_one.py"]
    assert "typed" in next(message for message in found.values() if "also declared" in message)
    assert "LEFT OUT" in served.log("serve")


def test_runs_and_requests_are_found_by_status(served):
    event_id = send(served, "own/never", '{"n": 1}')
    final(served, event_id)
    post(served.url(), "evt_status", secret="wrong")
    for status in ("succeeded", "failed"):
        found = served.get(f"/runs?status={status}")["data"]
        assert found
        assert {run["status"] for run in found} == {status}
    both = served.get("/runs?status=failed&status=succeeded&limit=200")["data"]
    assert {run["status"] for run in both} == {"failed", "succeeded"}
    for status in ("queued", "running", "waiting", "cancelled"):
        served.get(f"/runs?status={status}")
    until(lambda: {row["status"] for row in served.get("/requests?status=quarantined")["data"]} == {"quarantined"})
    refused = httpx.get(served.url() + "/api/v1/runs?status=happy", headers=AUTH)
    assert (refused.status_code, "succeeded" in refused.json()["detail"]) == (400, True)


def test_a_batch_is_all_or_nothing(served):
    before = served.get("/events/count?name=batch/*")["count"]
    batch = [{"name": "batch/ok"}, {"name": "bad"}]
    assert httpx.post(served.url() + "/api/v1/events", json=batch, headers=AUTH).status_code == 400
    assert served.get("/events/count?name=batch/*")["count"] == before
    good = httpx.post(served.url() + "/api/v1/events", json=[{"name": "batch/ok", "id": "k"}] * 2, headers=AUTH).json()["data"]
    assert [event["duplicate"] for event in good] == [False, True]


def test_failed_runs_are_retried_and_events_replayed_on_request(served):
    event_id = send(served, "own/never", '{"n": 9}')
    run_id = final(served, event_id)["never"]["run_id"]
    assert httpx.post(f"{served.url()}/api/v1/runs/{run_id}/retry", headers=AUTH).json()["status"] in (
        "queued",
        "running",
        "failed",
    )
    until(lambda: len(served.get(f"/runs/{run_id}/attempts")["data"]) == 2)
    made = httpx.post(f"{served.url()}/api/v1/events/{event_id}/replay", json={"functions": ["conditional"]}, headers=AUTH).json()
    until(lambda: served.get(f"/runs/{made['runs'][0]}")["status"] == "succeeded")


def test_the_command_line_signs_sends_and_shows(served):
    served.settings["TIDEGATE_URL"] = served.url()
    assert served.run("trigger", "stripe", "payout.paid").returncode == 0
    assert served.run("trigger", "github", "push").returncode == 0
    assert "summarise-push" in served.log("trigger")
    lines = served.folder / "events.jsonl"
    lines.write_text("".join(f'{{"name": "file/line", "data": {n}}}\n' for n in range(1200)))
    assert served.run("send", "--file", str(lines)).returncode == 0
    assert served.get("/events/count?name=file/line")["count"] == 1200
    for command in ("events", "runs", "requests", "functions", "sources", "providers"):
        result = served.run(command, "--json")
        assert result.returncode == 0, result.stdout
        assert json.loads(result.stdout)["data"]
    refused = served.run("trigger", "stripe", "no.such")
    assert refused.returncode == 1
    assert "it has:" in refused.stdout


@pytest.mark.parametrize("away", [False, True])
def test_a_key_that_may_only_send_is_enough_to_trigger_a_sample(served, tmp_path, away):
    key = served.call("POST", "/keys", {"name": f"sender {away}", "scopes": ["send"]}).json()["key"]
    with site(tmp_path, port=served.port, settings={"TIDEGATE_API_KEY": key}) as sender:
        if not away:
            sender.settings["TIDEGATE_DATA_DIR"] = str(served.folder / "data")
        made = json.loads(sender.cli("trigger", "stripe", "payout.paid", "--no-follow", "--json"))
        assert served.get(f"/events/{made['id']}")["name"] == "stripe/payout.paid"
        assert "200, event evt_" in sender.cli("trigger", "stripe", "payout.paid", "--no-follow")
        assert "has no sample 'no.such'" in sender.cli("trigger", "stripe", "no.such", "--no-follow", code=1)
        assert "scope `read`" in sender.cli("trigger", "stripe", "payout.paid", code=1)


def test_g8_no_secret_is_in_the_database_or_the_logs(served):
    stored = b"".join(path.read_bytes() for path in (served.folder / "data").glob("tidegate.db*"))
    for secret in (b"whsec_test_not_a_real_secret", b"gh-test", API_KEY.encode()):
        assert secret not in stored
        assert secret.decode() not in served.log("serve")
