"""Every provider, against the receiver's list: known answers come from the official library and published vectors."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Sequence
from urllib.parse import urlencode

import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st

from gateway import codec
from gateway.clock import to_datetime
from gateway.errors import DeclarationError, PayloadMismatch
from gateway.registry import load_providers
from gateway.sdk.provider import Provider, read
from gateway.sdk.scheme import Hmac, Inbound, Items, Rejected, Verified, fault_of
from providers.github import GitHub, Ping
from providers.stripe import InvoicePaid, Stripe

SECRET = "whsec_test_not_a_real_secret"
NOW = 1_800_000_000

SHIPPED = ("github", "stripe")
PROVIDERS = {name: load_providers().providers[name] for name in SHIPPED}
every_provider = pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS.keys())


def signed(provider: Provider, body: bytes, secret: str = SECRET, at: int = NOW) -> Inbound:
    headers = [(name.lower(), value) for name, value in provider.scheme.sign(body, secret, at)]
    return Inbound("POST", "/webhooks/x", headers, body)


def verdict(provider: Provider, request: Inbound, secrets: Sequence[str] = (SECRET,), now: int = NOW):
    return provider.verify(request, secrets, now)


def with_header(request: Inbound, value: str) -> Inbound:
    return Inbound(request.method, request.url, [(request.headers[0][0], value)], request.body)


def test_the_shipped_providers_load():
    assert {"stripe", "github"} <= PROVIDERS.keys()


def test_g7_a_delivery_signed_by_the_official_stripe_package_is_accepted():
    body = '{"id": "evt_1", "type": "invoice.paid"}'
    at = int(time.time())
    signature = stripe.WebhookSignature._compute_signature(f"{at}.{body}", SECRET)
    header = f"t={at},v1={signature}"
    assert stripe.WebhookSignature.verify_header(body, header, SECRET, 300)
    request = Inbound("POST", "/", [("stripe-signature", header)], body.encode())
    assert Stripe().verify(request, [SECRET], at) == Verified(0)


def test_g7_what_we_sign_as_stripe_the_official_package_accepts():
    sample = Stripe().sample("invoice.paid")
    at = int(time.time())
    [(_, header)] = Stripe().scheme.sign(sample.body, SECRET, at)
    assert stripe.WebhookSignature.verify_header(sample.body.decode(), header, SECRET, 300)


def test_g7_githubs_published_vector_is_accepted():
    # https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries#testing-the-webhook-payload-validation
    header = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    request = Inbound("POST", "/", [("x-hub-signature-256", header)], b"Hello, World!")
    assert GitHub().verify(request, ["It's a Secret to Everybody"], NOW) == Verified(0)


@every_provider
def test_g7_good_passes_and_everything_else_is_refused_with_its_reason(provider):
    request = signed(provider, b'{"a": 1}')
    name, value = request.headers[0]
    altered = Inbound("POST", "/", request.headers, b'{"a": 2}')
    doubled = Inbound("POST", "/", [*request.headers, *request.headers], request.body)
    assert verdict(provider, request) == Verified(0)
    assert verdict(provider, request, ["another"]).reason == "no_match"
    assert verdict(provider, altered).reason == "no_match"
    assert verdict(provider, Inbound("POST", "/", [], request.body)).reason == "missing_header"
    assert verdict(provider, doubled).reason == "doubled_header"
    assert verdict(provider, with_header(request, "")).reason == "malformed_header"
    assert verdict(provider, with_header(request, value[:-2])).reason == "malformed_header"
    assert verdict(provider, with_header(request, value.rpartition("=")[0] + "=")).reason == "malformed_header"
    assert verdict(provider, with_header(request, value + "," + "x" * 5000)).reason == "malformed_header"
    assert name in provider.scheme.header.lower()


@every_provider
def test_g7_all_live_secrets_are_tried_and_the_one_that_matched_is_told(provider):
    request = signed(provider, b"{}", "old")
    assert verdict(provider, request, ["new", "old"]) == Verified(1)


@every_provider
@pytest.mark.parametrize("secrets", [[], [""], ["  "]])
def test_g7_an_empty_secret_is_never_a_key(provider, secrets):
    assert verdict(provider, signed(provider, b"{}", ""), secrets).reason == "no_secret"


def test_g7_the_time_window_has_two_sides_and_its_edges_are_inside():
    provider = Stripe()
    for at, expected in [
        (NOW - 300, Verified(0)),
        (NOW + 300, Verified(0)),
        (NOW - 301, Rejected("timestamp_too_old", "It was signed 301 s before it came; 300 s are allowed.")),
        (NOW + 301, Rejected("timestamp_in_future", "It was signed 301 s after it came; 300 s are allowed.")),
    ]:
        assert verdict(provider, signed(provider, b"{}", at=at)) == expected


@pytest.mark.parametrize("stamp", ["+{}", " {}", "{}_0", "١٨", "", "-1", "9" * 20, "{},t={}"])
def test_g7_a_timestamp_is_ascii_digits_once(stamp):
    request = signed(Stripe(), b"{}")
    value = request.headers[0][1].replace(f"t={NOW}", "t=" + stamp.format(NOW, NOW))
    assert isinstance(verdict(Stripe(), with_header(request, value)), Rejected)


def test_g7_an_altered_timestamp_is_refused():
    request = signed(Stripe(), b"{}")
    value = request.headers[0][1].replace(f"t={NOW}", f"t={NOW + 1}")
    assert verdict(Stripe(), with_header(request, value)).reason == "no_match"


def test_stripe_signs_with_several_v1_while_a_secret_rolls_and_v0_never_counts():
    body = b"{}"
    digest = hmac.new(SECRET.encode(), f"{NOW}.".encode() + body, hashlib.sha256).hexdigest()
    other = "0" * 64
    several = Inbound("POST", "/", [("stripe-signature", f"t={NOW},v1={other},v1={digest},v0={other}")], body)
    only_v0 = Inbound("POST", "/", [("stripe-signature", f"t={NOW},v0={digest}")], body)
    assert verdict(Stripe(), several) == Verified(0)
    assert verdict(Stripe(), only_v0).reason == "malformed_header"


@every_provider
@given(header=st.text(max_size=200), body=st.binary(max_size=200), secret=st.text(max_size=20))
def test_verification_is_total(provider, header, body, secret):
    request = Inbound("POST", "/", [(provider.scheme.header.lower(), header)], body)
    assert isinstance(provider.verify(request, [secret], NOW), Verified | Rejected)


@every_provider
@given(body=st.binary(max_size=300), kind=st.sampled_from(["application/json", "application/x-www-form-urlencoded", "\xff"]))
def test_a_verified_webhook_is_never_refused_for_its_contents(provider, body, kind):
    parsed = read(provider, Inbound("POST", "/", [("content-type", kind), ("x-github-event", "push")], body))
    assert parsed.key


@every_provider
@pytest.mark.parametrize("body", [b'{"id": null}', b'{"type": 7, "id": []}', b"[]", b"7", b'"x"', b'{"type": "x", "data": 3}'])
def test_odd_json_is_an_event_all_the_same(provider, body):
    assert read(provider, Inbound("POST", "/", [], body)).key


@every_provider
def test_every_sample_verifies_and_fits_its_own_typed_class(provider):
    kinds = {kind.event_name: kind for kind in provider.events}
    for type_ in provider.samples:
        sample = provider.sample(type_)
        headers = [(n.lower(), v) for n, v in [*sample.headers, *provider.scheme.sign(sample.body, SECRET, NOW)]]
        request = Inbound("POST", "/", headers, sample.body)
        assert verdict(provider, request) == Verified(0)
        parsed = read(provider, request)
        assert parsed.type == type_
        raw = parsed.data or codec.member(sample.body, parsed.data_path)
        decode(kinds[f"{provider.name}/{type_}"], raw)


@every_provider
def test_typed_names_are_unique_and_the_providers_own(provider):
    names = [kind.event_name for kind in provider.events]
    assert len(names) == len(set(names)) >= 20
    assert all(name.startswith(provider.name + "/") for name in names)


def decode(kind, raw: bytes):
    at = to_datetime(0)
    return kind.decode(raw, id="evt_1", name=kind.event_name, source="s", occurred_at=at, received_at=at, attributes={})


def test_slacks_published_vector_is_accepted_by_its_scheme_as_data():
    # https://docs.slack.dev/authentication/verifying-requests-from-slack
    scheme = Hmac(header="X-Slack-Signature", content="v0:{timestamp}:{body}", prefix="v0=", timestamp_header="X-Slack-Request-Timestamp")
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar"
        b"&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com"
        b"%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10"
        b"d2c447fce8b6703c"
    )
    headers = [
        ("x-slack-request-timestamp", "1531420618"),
        ("x-slack-signature", "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"),
    ]
    secrets = ["8f742231b10e8888abcd99yyyzzz85a5"]
    assert scheme.verify(Inbound("POST", "/", headers, body), secrets, 1531420618) == Verified(0)
    assert scheme.verify(Inbound("POST", "/", headers[1:], body), secrets, 1531420618).reason == "missing_header"
    assert scheme.verify(Inbound("POST", "/", headers, body), secrets, 1531421618).reason == "timestamp_too_old"


STANDARD = Hmac(
    header="webhook-signature",
    content="{header:webhook-id}.{timestamp}.{body}",
    prefix="v1,",
    separator=" ",
    encoding="base64",
    timestamp_header="webhook-timestamp",
    secret_prefix="whsec_",
    secret_encoding="base64",
)


def test_standard_webhooks_as_data_is_what_its_official_library_signs():
    from datetime import UTC, datetime

    from standardwebhooks.webhooks import Webhook

    secret, body = "whsec_plJ3nmyCDGBKInavdOK15jsl", '{"event_type":"ping","data":{"success":true}}'
    signature = Webhook(secret).sign("msg_1", datetime.fromtimestamp(NOW, UTC), body)
    headers = [("webhook-id", "msg_1"), ("webhook-timestamp", str(NOW)), ("webhook-signature", f"v2,zz v1,AAAA {signature}")]
    assert STANDARD.verify(Inbound("POST", "/", headers, body.encode()), [secret], NOW) == Verified(0)
    assert STANDARD.verify(Inbound("POST", "/", headers[1:], body.encode()), [secret], NOW).reason == "missing_header"
    ours = STANDARD.sign(body.encode(), secret, NOW, [("webhook-id", "msg_1")])
    assert dict(ours)["webhook-signature"] == signature
    assert STANDARD.fault("whsec_not base64!") is not None


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"encoding": "base32"}, "encoding"),
        ({"algorithm": "md5"}, "algorithm"),
        ({"content": "{id}.{body}"}, "id"),
        ({"content": "{timestamp}.{body}"}, "timestamp_header"),
        ({"content": "nothing"}, "body"),
        ({"content": None}, "`content` is a text"),
        ({"prefix": b"sha256="}, "`prefix` is a text"),
        ({"header": ""}, "`header` is a text"),
        ({"tolerance": "5m"}, "`tolerance` is a whole number of seconds from 1, not '5m'"),
        ({"tolerance": 0}, "tolerance"),
        ({"tolerance": True}, "tolerance"),
        ({"items": {"timestamp": "t", "signature": "v1"}}, r"`items` is Items\("),
    ],
)
def test_a_scheme_that_cannot_be_is_refused_when_it_is_declared(options, names):
    with pytest.raises(DeclarationError, match=names):
        Hmac(**{"header": "X-Signature", **options})


def test_items_that_are_no_texts_are_refused_when_they_are_declared():
    with pytest.raises(DeclarationError, match="`separator` is a text, not ''"):
        Items(timestamp="t", signature="v1", separator="")


@pytest.mark.parametrize("secret", ["sk_live_abc", "rk_test_abc", "pk_live_abc", "we_1abc"])
def test_what_stripe_shows_beside_the_signing_secret_is_refused_as_a_secret(secret):
    fault = fault_of(PROVIDERS["stripe"].scheme, secret)
    assert fault is not None
    assert "begins with whsec_" in fault
    assert secret not in fault
    assert fault_of(PROVIDERS["stripe"].scheme, "whsec_abc") is None


@pytest.mark.parametrize(
    ("members", "names"),
    [
        ({"ids_at": "id"}, "did you mean `id_at`"),
        ({"type_at": 5}, "type_at"),
        ({"attributes": "mode"}, "attributes"),
        ({"name": None}, "name"),
        ({"scheme": "hmac"}, "scheme"),
        ({"type_at": ""}, "type_at"),
        ({"samples": {"a": {"id": 1}}}, "lambda"),
    ],
)
def test_a_provider_that_cannot_be_is_refused_when_it_is_declared(members, names):
    good = {"name": "acme", "scheme": Hmac(header="X-Signature"), "type_at": "type"}
    type("Acme", (Provider,), good)()
    with pytest.raises(DeclarationError, match=names):
        type("Acme", (Provider,), {**good, **members})()


def test_type_and_id_may_stand_deeper_and_ids_may_be_numbers():
    class Deep(Provider):
        name = "deep"
        scheme = Hmac(header="X-Signature")
        type_at = "event.type"
        id_at = "event.meta.id"

    parsed = read(Deep(), Inbound("POST", "/", [], b'{"event": {"type": "made", "meta": {"id": 12345678901234567890}}}'))
    assert (parsed.type, parsed.key) == ("made", "12345678901234567890")


def test_a_parser_that_fails_or_answers_nonsense_costs_no_webhook_and_is_told():
    class Bad(Provider):
        name = "bad"
        scheme = Hmac(header="X-Signature")

        def parse(self, request):
            return None if request.body == b"none" else 1 / 0

    for body in (b"none", b"raise"):
        told: list[Exception] = []
        assert read(Bad(), Inbound("POST", "/", [], body), told.append).type == "unknown"
        assert len(told) == 1


def test_a_github_body_that_cannot_be_read_keeps_its_name_and_delivery():
    headers = [("content-type", "application/x-www-form-urlencoded"), ("x-github-event", "push"), ("x-github-delivery", "g7")]
    parsed = read(GitHub(), Inbound("POST", "/", headers, b"nothing=here"))
    assert (parsed.type, parsed.key.partition(":")[0]) == ("push", "g7")


def test_unknown_fields_are_ignored_and_promised_types_are_kept():
    event = decode(InvoicePaid, b'{"object": {"id": "in_1", "amount_paid": 5, "new_field": {"x": 1}}}')
    assert event.data.object.amount_paid == 5
    with pytest.raises(PayloadMismatch, match=r"\$\.object\.amount_paid"):
        decode(InvoicePaid, b'{"object": {"id": "in_1", "amount_paid": "5"}}')
    for raw in (b"", b"no", b"\xff\xfe9"):
        with pytest.raises(PayloadMismatch, match="data is not JSON"):
            decode(InvoicePaid, raw)


def test_stripes_id_account_and_mode_are_kept():
    body = b'{"id": "evt_9", "type": "payout.paid", "created": 1700000000, "account": "acct_1", "livemode": true, "data": {}}'
    parsed = read(Stripe(), Inbound("POST", "/", [], body))
    assert (parsed.key, parsed.type, parsed.occurred_at) == ("evt_9", "payout.paid", 1_700_000_000_000_000)
    assert parsed.attributes == {"account": "acct_1", "livemode": True}


def test_a_thin_stripe_event_is_its_own_data():
    body = b'{"id": "evt_2", "object": "v2.core.event", "type": "v1.billing.meter.error", "created": "2026-01-01T00:00:00Z"}'
    parsed = read(Stripe(), Inbound("POST", "/", [], body))
    assert (parsed.type, parsed.key, parsed.data_path) == ("v1.billing.meter.error", "evt_2", "")


def test_githubs_form_encoding_and_ping_are_read():
    payload = b'{"zen": "Keep it logically awesome.", "hook_id": 1, "emoji": "\xc3\xa9 + &"}'
    body = urlencode({"payload": payload}).encode()
    headers = [("content-type", "application/x-www-form-urlencoded"), ("x-github-event", "ping"), ("x-github-delivery", "g1")]
    parsed = read(GitHub(), Inbound("POST", "/", headers, body))
    assert (parsed.type, parsed.data) == ("ping", payload)
    assert decode(Ping, payload).data.hook_id == 1
    assert parsed.key == "g1:sha256:" + hashlib.sha256(body).hexdigest()


def test_g2_another_body_under_a_known_github_delivery_is_another_event():
    headers = [("x-github-event", "push"), ("x-github-delivery", "g1")]
    keys = {read(GitHub(), Inbound("POST", "/", headers, body)).key for body in (b'{"a": 1}', b'{"a": 2}')}
    assert len(keys) == 2


@every_provider
def test_g7_a_signature_in_hex_has_no_spaces(provider):
    request = signed(provider, b"{}")
    value = request.headers[0][1]
    assert verdict(provider, request) == Verified(0)
    for spaced in (value[:-2] + " " + value[-2:], value[:-2] + "\t" + value[-2:]):
        assert verdict(provider, with_header(request, spaced)) == Rejected(
            "malformed_header", f"It should look like {provider.scheme.shape}."
        )
