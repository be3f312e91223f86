"""The suite behind `tidegate providers test`: what is shipped passes it, what is wrong does not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import ClassVar

import pytest

from gateway.errors import DeclarationError
from gateway.registry import load_providers
from gateway.sdk.provider import Provider
from gateway.sdk.scheme import Hmac, Inbound, Verdict, Verified
from gateway.testing.conformance import examine
from tests.processes import Site, site, stripe_delivery


class OpenDoor:
    def verify(self, request: Inbound, secrets: Sequence[str], now: int) -> Verdict:
        return Verified(0)

    def sign(self, body: bytes, secret: str, now: int, headers: object = ()) -> list[tuple[str, str]]:
        return [("X-Signature", "open sesame")]


class Door(Provider):
    name = "door"
    scheme = OpenDoor()
    type_at = "type"
    id_at = "id"
    samples: ClassVar = {"a": lambda: {"id": "1", "type": "a"}}


@pytest.mark.parametrize("name", ["stripe", "github"])
def test_shipped_providers_conform(name):
    checks = examine(load_providers(()).providers[name])
    assert len(checks) > 5
    assert [check for check in checks if not check.ok] == []


def test_a_provider_that_lets_anybody_in_is_found_out():
    wrong = {check.name for check in examine(Door()) if not check.ok}
    assert {"a: another secret is refused", "a: an altered body is refused", "a: a missing signature is refused"} <= wrong


@pytest.fixture
def folder(tmp_path) -> Site:
    with site(tmp_path) as made:
        yield made


def test_verify_tells_without_a_server_what_a_delivery_is_and_why_it_is_refused(folder, tmp_path):
    body, headers = stripe_delivery("evt_1", "invoice.paid", "whsec_right")
    (tmp_path / "body.json").write_bytes(body)
    common = ["--header", f"Stripe-Signature: {headers['Stripe-Signature']}", "--body-file", "body.json", "--json"]
    done = folder.run("providers", "verify", "stripe", "--secret", "whsec_wrong", "--secret", "whsec_right", *common)
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"verdict": "verified", "secret": 1, "event": "stripe/invoice.paid", "key": "evt_1"}
    (tmp_path / "providers.log").unlink()
    refused = folder.run("providers", "verify", "stripe", "--secret", "whsec_wrong", *common)
    assert refused.returncode == 1
    assert json.loads(refused.stdout)["reason"] == "no_match"
    (tmp_path / "providers.log").unlink()
    late = folder.run("providers", "verify", "stripe", "--secret", "whsec_right", "--at", "1000000000", *common)
    assert json.loads(late.stdout)["verdict"] == "rejected"


def test_a_sample_that_cannot_be_made_is_named_with_its_file():
    class Odd(Provider):
        name = "odd"
        scheme = Hmac(header="X-Odd")
        type_at = "type"
        samples: ClassVar = {"a": lambda: {"id": 1 // 0}}

    with pytest.raises(DeclarationError, match=r"the sample 'a' cannot be made: ZeroDivisionError"):
        Odd().sample("a")
