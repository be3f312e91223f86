"""Providers whose own code fails on what a sender has sent: no webhook is lost by it."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import httpx
import pytest

from tests.processes import Site, site, until

FAULTY = """
from gateway import Provider, Verified

class Scheme:
    def verify(self, request, secrets, now):
        {verify}

    def sign(self, body, secret, now, headers=()):
        return []

class Faulty(Provider):
    name = "faulty"
    scheme = Scheme()
    type_at = "type"

    def parse(self, request):
        {parse}
"""
GOOD_VERIFY, GOOD_PARSE = "return Verified(0)", "return super().parse(request)"
LINE = FAULTY.splitlines().index("        {verify}") + 1
BODY = b'{"type": "made", "card": "4242-private"}'


@pytest.fixture
def faulty(tmp_path, database_url) -> Iterator[Site]:
    with site(tmp_path, database_url=database_url, settings={"FAULTY_WEBHOOK_SECRET": "not-a-real-secret"}) as made:
        (tmp_path / "providers").mkdir()
        assert made.run("migrate").returncode == 0
        yield made


def begin(made: Site, verify: str = GOOD_VERIFY, parse: str = GOOD_PARSE) -> None:
    for process in made.processes:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    made.processes.clear()
    (made.folder / "providers" / "faulty.py").write_text(FAULTY.format(verify=verify, parse=parse))
    made.start("gateway")
    until(lambda: answers(made), 30)


def answers(made: Site) -> bool:
    try:
        return httpx.get(made.url() + "/healthz").status_code == 200
    except httpx.HTTPError:
        return False


def deliver(made: Site) -> httpx.Response:
    return httpx.post(made.url() + "/webhooks/faulty", content=BODY, timeout=10)


@pytest.mark.parametrize(
    "verify",
    [
        "raise LookupError(request.body.decode())",
        "raise SystemExit(3)",
        "return None",
        "return Verified(7)",
        "return Verified(None)",
        "from gateway import Rejected; return Rejected(5)",
        "from gateway import Rejected; return Rejected([])",
        "yield Verified(0)",
    ],
)
def test_g1_a_request_whose_verification_fails_by_our_fault_is_kept_and_asked_for_again(faulty, verify):
    begin(faulty, verify=verify)
    answer = deliver(faulty)
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (500, "internal", "60")
    until(lambda: faulty.get("/requests?reason=provider_error")["data"])
    [kept] = faulty.get("/requests")["data"]
    assert kept["status"] == "quarantined"
    shown = faulty.cli("requests", "show", kept["id"])
    assert (f"in faulty.py, line {LINE}" if verify.startswith("raise") else "faulty.py") in shown
    log = faulty.log("gateway")
    assert "webhook.astray" in log
    assert "4242" not in log
    assert faulty.call("POST", f"/requests/{kept['id']}/reprocess").json()["reason"] == "provider_error"

    begin(faulty)
    assert faulty.call("POST", f"/requests/{kept['id']}/reprocess").json()["status"] == "accepted"
    [event] = faulty.get("/events?source=faulty")["data"]
    assert event["name"] == "faulty/made"
    assert deliver(faulty).json() == {"id": event["id"], "duplicate": True}


@pytest.mark.parametrize(
    "parse",
    [
        "raise LookupError(request.body.decode())",
        "raise SystemExit(3)",
        "return None",
        "yield super().parse(request)",
        "from gateway import Parsed; return Parsed(type='made', key='k', occurred_at='now')",
        "from gateway import Parsed; return Parsed(type='made', key='k', occurred_at=True)",
        "from gateway import Parsed; return Parsed(type='made', key='k', data='text')",
        "from gateway import Parsed; return Parsed(type='made', key='k', data_path=7)",
        "from gateway import Parsed; return Parsed(type='made', key='k', data_path='\\ud800')",
        "from gateway import Parsed; return Parsed(type='made', key='k', attributes=7)",
    ],
)
def test_a_verified_request_that_cannot_be_read_is_an_event_all_the_same(faulty, parse):
    begin(faulty, parse=parse)
    event_id = deliver(faulty).json()["id"]
    event = faulty.get(f"/events/{event_id}")
    assert event["name"] in ("faulty/unknown", "faulty/made")
    assert "webhook.unread" in faulty.log("gateway")
    assert "4242" not in faulty.log("gateway")
