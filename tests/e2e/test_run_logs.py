"""What a run says, kept with the run; and what the processes say, which is never a secret or a payload."""

from __future__ import annotations

import json
import socket

import pytest

from gateway.sdk.scheme import Hmac
from tests.processes import API_KEY, HTTP, SECRET, post, site, stripe_delivery, until

FINAL = {"succeeded", "failed", "cancelled"}


def ended(many, function: str, data: object) -> str:
    event_id = many.site.call("POST", f"/functions/{function}/invoke", {"data": data}).json()["id"]
    until(lambda: many.site.get(f"/runs?event_id={event_id}")["data"][0]["status"] in FINAL)
    return many.site.get(f"/runs?event_id={event_id}")["data"][0]["id"]


def test_what_a_function_logs_is_kept_in_order_from_threads_and_libraries_too_and_print_is_not(many):
    run_id = ended(many, "talk", {"who": "Ada"})
    lines = many.site.get(f"/runs/{run_id}/logs")["data"]
    assert [(line["level"], line["attempt"]) for line in lines] == [("info", 1), ("warning", 1), ("error", 1), ("info", 1)]
    assert lines[0]["message"] == "hello Ada"
    assert lines[1]["message"] == "from a library, in a thread"
    assert "Traceback" in lines[2]["message"]
    assert "told with its traceback" in lines[2]["message"]
    assert len(lines[3]["message"]) == 4000, "a long line is cut"
    assert "\\ud800" in lines[3]["message"]
    assert not any("printed" in line["message"] for line in lines)
    printed = many.site.cli("runs", "logs", run_id)
    assert "hello Ada" in printed
    assert printed.index("hello Ada") < printed.index("from a library")
    assert json.loads(many.site.cli("runs", "logs", run_id, "--json"))["data"] == lines


@pytest.mark.parametrize(("function", "times"), [("note", 2), ("jot", 1)])
def test_a_line_says_in_which_step_it_was_said_from_any_logger_and_thread(many, function, times):
    run_id = ended(many, function, {})
    lines = many.site.get(f"/runs/{run_id}/logs")["data"]
    assert [(line["message"], line["step"]) for line in (lines[0], lines[-1])] == [("noted before", None), ("noted after", None)]
    inside = lines[1:-1]
    keys = ["a", "b"] if function == "note" else ["all/0", "all/1", "alone"]
    assert sorted(line["step"] for line in inside) == sorted(keys * times)
    assert all(line["message"] == f"noted {line['step']}" for line in inside)
    assert f"[{keys[-1]}] noted {keys[-1]}" in many.site.cli("runs", "logs", run_id)

    written = [json.loads(line) for line in many.site.log("worker").splitlines() if run_id in line and "noted" in line]
    assert len(written) == len(lines)
    for line in written:
        assert (line["run_id"], line["function_id"], line["attempt"]) == (run_id, function, 1)
        name = line["event"].removeprefix("noted ")
        assert line.get("step") == (None if name in ("before", "after") else name)


def test_a_run_that_babbles_keeps_its_first_thousand_lines_and_says_that_there_were_more(many):
    run_id = ended(many, "babble", {})
    first = many.site.get(f"/runs/{run_id}/logs?limit=1000")
    assert [line["message"] for line in first["data"]] == [f"line {n}" for n in range(1000)]
    rest = many.site.get(f"/runs/{run_id}/logs?limit=1000&cursor={first['next_cursor']}")
    assert [line["message"] for line in rest["data"]] == ["this attempt has said 1000 lines; what it says from here on is not kept"]
    assert rest["next_cursor"] is None
    small = many.site.get(f"/runs/{run_id}/logs?limit=7")
    assert [line["message"] for line in small["data"]] == [f"line {n}" for n in range(7)]
    assert many.site.cli("runs", "logs", run_id).count("\n") == 1001


def test_runs_do_not_hear_each_other_and_a_run_without_words_has_none(many):
    runs = [ended(many, "talk", {"who": f"number {n}"}) for n in range(3)]
    for n, run_id in enumerate(runs):
        said = [line["message"] for line in many.site.get(f"/runs/{run_id}/logs")["data"]]
        assert [text for text in said if text.startswith("hello")] == [f"hello number {n}"]
    assert many.site.get(f"/runs/{ended(many, 'stopped', {})}/logs") == {"data": [], "next_cursor": None}
    assert many.site.call("GET", "/runs/run_none/logs").status_code == 404


def test_g9_an_if_that_cannot_be_decided_costs_no_event_and_its_delivery_says_why(many):
    sent = many.site.call("POST", "/events", {"name": "own/undecided", "data": {"n": "no number"}})
    assert sent.status_code == 200
    [delivery] = many.site.get(f"/events/{sent.json()['id']}/deliveries")["data"]
    assert (delivery["function_id"], delivery["status"]) == ("conditional", "skipped")
    assert delivery["skip_reason"].startswith("if_error")


PROVIDER = """
from gateway import Hmac, Parsed, Provider

class Clumsy(Provider):
    name = "clumsy"
    scheme = Hmac(header="X-Signature")
    type_at = "type"
    samples = {"a": lambda: {"type": "a"}}

    def parse(self, request):
        if b"raise" in request.body:
            raise ValueError(f"cannot read {request.body!r}")
        return Parsed(type=[request.body], key=request.body)
"""
FUNCTIONS = """
from dataclasses import dataclass
from gateway import Context, Event, function

@dataclass
class Data:
    n: int

class Typed(Event[Data], name="own/typed"): ...

@function(on=Typed, retries=0)
async def typed(ctx: Context[Typed]) -> int:
    return ctx.event.data.n

@function(on="*", if_="event.data.text")
async def undecided(ctx: Context) -> None: ...

@function(on="*", if_="event.data[event.data.text] == 1")
async def unfound(ctx: Context) -> None: ...

@function(on="stripe/*")
async def returns(ctx: Context) -> object:
    return ctx.event.data
"""
MARK = "pay1oad-marker"


def test_g8_no_secret_signature_key_or_payload_is_in_what_the_processes_say(tmp_path):
    settings = {"CLUMSY_WEBHOOK_SECRET": "clumsy-secret", "TIDEGATE_PROVIDERS": "own-providers"}
    with site(tmp_path, functions=FUNCTIONS, settings=settings) as made:
        (tmp_path / "own-providers").mkdir()
        (tmp_path / "own-providers" / "clumsy.py").write_text(PROVIDER)
        made.start("serve")
        made.wait_ready()
        key = made.call("POST", "/keys", {"name": "busy", "scopes": ["admin"]}, Idempotency_Key="k").json()["key"]
        made.call("POST", "/sources", {"name": "shop", "provider": "stripe", "secrets": ["whsec_shop_secret"]}, key=key)
        body, headers = stripe_delivery(f"evt_{MARK}", pad=3)
        signature = headers["Stripe-Signature"].partition("v1=")[2]
        body = body.replace(b'"xxx"', f'"{MARK}"'.encode())
        for source in ("stripe", "shop", "nope"):
            HTTP.post(f"{made.url()}/webhooks/{source}", content=body, headers=headers)
        HTTP.post(f"{made.url()}/webhooks/stripe?token={MARK}", content=body, headers={"Stripe-Signature": f"{MARK},{signature}"})
        assert post(made.url(), "evt_good").status_code == 200
        for text in (f'{{"raise": "{MARK}"}}', f'{{"type": "{MARK}"}}'):
            sign = dict(Hmac(header="X-Signature").sign(text.encode(), "clumsy-secret", 0))
            assert HTTP.post(f"{made.url()}/webhooks/clumsy", content=text.encode(), headers=sign).status_code == 200
        for data in ({"text": MARK}, {"n": MARK}, {"text": MARK, MARK: MARK}, [MARK]):
            made.call("POST", "/events", {"name": "own/typed", "data": data}, key=key)
        made.call("POST", "/events", {"name": MARK}, key=key)
        made.call("GET", f"/events/{MARK}?{MARK}=1", key=key)
        made.call("POST", "/sources", {"name": MARK.upper(), "provider": "stripe", "secrets": ["whsec_shop_secret"]})
        until(lambda: made.get("/runs/count?function=typed&status=failed")["count"] == 4)
        until(lambda: made.get("/requests/count?status=quarantined")["count"] == 3)
        made.stop()
        said = made.log("serve")
        facts = {json.loads(line)["fact"] for line in said.splitlines() if line.startswith("{") and "fact" in line}
        assert facts >= {"webhook.refused", "webhook.unread", "delivery.if_error", "run.ended"}
        for hidden in (SECRET, "whsec_shop_secret", "clumsy-secret", API_KEY, key, "not-a-real-master-key", signature, MARK):
            assert hidden not in said, next(line for line in said.splitlines() if hidden in line)


@pytest.mark.parametrize("junk", [b"\x00" * 100, b"GET / HTTP/9.9\r\n\r\n", b"no http at all\r\n\r\n"], ids=["zeros", "version", "words"])
def test_bytes_that_are_no_http_are_answered_and_make_no_line_each(tight, junk):
    before = tight.log("gateway").count("\n")
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", tight.port), timeout=5) as connection:
            connection.sendall(junk)
            answer = connection.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "unreadable"
    assert tight.log("gateway").count("\n") == before
