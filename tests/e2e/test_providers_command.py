"""`tidegate providers`: a delivery judged and a provider examined without a server; one's own provider too."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path

import pytest

from tests.processes import Site

AT = 1_790_000_000
BODY = b'{"id": "evt_9", "type": "order.created", "n": 12345678901234567890}'
SECRET = "acme-secret-not-a-real-one"
SIGNATURE = hmac.new(SECRET.encode(), f"{AT}.".encode() + BODY, hashlib.sha256).hexdigest()

ACME = """
from gateway import Hmac, Items, Provider

class Acme(Provider):
    name = "acme"
    scheme = Hmac(header="Acme-Signature", content="{timestamp}.{body}", items=Items(timestamp="t", signature="v1"))
    type_at = "type"
    id_at = "id"
    samples = {"order.created": lambda: {"id": "evt_1", "type": "order.created"}}
"""
LOOSE = """
from gateway import Provider
from gateway.sdk.scheme import Verified

class Anything:
    def verify(self, request, secrets, now):
        return Verified(0)

    def sign(self, body, secret, now, headers=()):
        return [("X-Signature", "1")]

class Loose(Provider):
    name = "loose"
    scheme = Anything()
    type_at = "type"
    samples = {"a": lambda: {"type": "a"}}
"""
LOST = ACME.replace('name = "acme"', 'name = "lost"').replace('id_at = "id"', 'id_at = "idd"')
BROKEN = "from gateway import Provider\n\nclass Broken(Provider):\n    name = 'broken'\n"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A folder with providers of one's own; nothing runs."""
    made = Site(tmp_path_factory.mktemp("providers"))
    (made.folder / "providers").mkdir()
    for name, text in (("acme", ACME), ("loose", LOOSE), ("lost", LOST), ("broken", BROKEN)):
        (made.folder / "providers" / f"{name}.py").write_text(text)
    (made.folder / "body.json").write_bytes(BODY)
    return made


def verify(here: Site, *words: str, name: str = "acme", code: int = 0) -> dict:
    out = here.cli("providers", "verify", name, "--body-file", "body.json", *words, "--json", code=code)
    return json.loads(out)


def test_a_delivery_is_judged_as_of_its_time_with_every_secret_and_its_name_and_key_are_told(here):
    words = ("--secret", "another", "--secret", SECRET, "--header", f"Acme-Signature: t={AT},v1={SIGNATURE}", "--at", str(AT))
    assert verify(here, *words) == {"verdict": "verified", "secret": 1, "event": "acme/order.created", "key": "evt_9"}
    shown = here.cli("providers", "verify", "acme", "--body-file", "body.json", *words)
    for word in ("verified", "acme/order.created", "evt_9"):
        assert word in shown


@pytest.mark.parametrize(
    ("secret", "header", "at", "reason", "says"),
    [
        (SECRET, f"Acme-Signature: t={AT},v1={SIGNATURE}", None, "timestamp_too_old", "too old"),
        (SECRET, f"Acme-Signature: t={AT},v1={SIGNATURE}", AT - 3600, "timestamp_in_future", "future"),
        ("wrong", f"Acme-Signature: t={AT},v1={SIGNATURE}", AT, "no_match", "wrong secret"),
        (SECRET, "X-Other: 1", AT, "missing_header", "Acme-Signature"),
        (SECRET, "Acme-Signature: nonsense", AT, "malformed_header", "t=<seconds>"),
        ("", f"Acme-Signature: t={AT},v1={SIGNATURE}", AT, "no_secret", "no usable secret"),
    ],
)
def test_a_refusal_says_why_in_words_and_ends_with_1(here, secret, header, at, reason, says):
    words = ("--secret", secret, "--header", header, *(() if at is None else ("--at", str(at))))
    shown = verify(here, *words, code=1)
    assert (shown["verdict"], shown["reason"], shown["event"]) == ("rejected", reason, None)
    assert says in shown["diagnosis"]


def test_the_conformance_suite_holds_for_the_providers_that_come_along_and_for_ones_own(here):
    for name in ("stripe", "github", "acme"):
        checks = json.loads(here.cli("providers", "test", name, "--json"))["data"]
        assert len(checks) > 20
        assert all(check["ok"] for check in checks)


def test_a_provider_that_lets_anybody_in_fails_the_suite_by_name(here):
    said = here.cli("providers", "test", "loose", code=1)
    for check in ("another secret", "an empty secret", "an altered body", "a missing signature"):
        assert f"WRONG  a: {check} is refused: is accepted" in said


def test_a_path_that_leads_nowhere_in_the_sample_fails_the_suite(here):
    assert "WRONG  order.created: it has a member at `id_at`: there is no 'idd' in the sample" in here.cli(
        "providers", "test", "lost", code=1
    )


def test_a_provider_that_is_not_there_or_broken_is_told_with_those_that_are(here):
    said = here.cli("providers", "test", "nope", code=1)
    assert "there is no provider 'nope' (there are: acme, github, loose, lost, stripe)" in said
    assert "providers/broken.py" in here.cli("providers", "test", "broken", code=1)
    listed = json.loads(here.cli("providers", "--json"))["data"]
    assert {row["name"] for row in listed} == {"acme", "github", "loose", "lost", "stripe"}
    assert not Path(here.folder / "data").exists(), "looking needs no database"


def test_a_module_that_declares_nothing_is_told_by_doctor(here):
    for folder in ("providers", "functions"):
        (here.folder / folder / "nothing.py").write_text("X = 1\n")
    said = here.cli("doctor", code=1)
    assert "ok     providers/nothing.py declares no provider; if it only serves other modules, put a `_` before its name" in said
    assert "ok     functions/nothing.py declares no function" in said
