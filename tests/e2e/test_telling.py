"""What the commands that show things say of what is easily misread."""

from __future__ import annotations

import time

from gateway.sdk.scheme import Hmac, Items
from tests.processes import HTTP, SECRET, until

SCHEME = Hmac(header="Stripe-Signature", content="{timestamp}.{body}", items=Items(timestamp="t", signature="v1"))


def sent(many, name: str, **more: object) -> str:
    return many.site.call("POST", "/events", {"name": name, **more}).json()["id"]


def test_a_skipped_delivery_shows_the_condition_that_was_not_true(many):
    event_id = sent(many, "own/unheard", data={"n": 1})
    said = many.site.cli("events", "show", event_id)
    assert "skipped: if_false" in said
    assert "its if_: event.data.n > 3" in said
    assert "its if_: event.data.n > 3" in many.site.cli("events", "deliveries", event_id)


def test_attempts_before_and_after_a_retry_by_hand_are_told_apart(many):
    event_id = sent(many, "own/fail")
    until(lambda: many.site.get(f"/runs?event_id={event_id}&function=fail&status=failed")["data"])
    (run,) = many.site.get(f"/runs?event_id={event_id}&function=fail")["data"]
    assert "retried by hand" not in many.site.cli("runs", "show", run["id"])
    many.site.cli("runs", "retry", run["id"])
    until(lambda: len(many.site.get(f"/runs/{run['id']}/attempts")["data"]) == 2)
    for words in (("runs", "show", run["id"]), ("events", "show", event_id)):
        first, second = many.site.cli(*words).split("retried by hand")
        assert "attempt 1  " in first
        assert "attempt 1  " in second


def test_an_event_whose_type_could_not_be_read_says_where_its_bytes_are(many):
    body = b'{"id": "evt_untyped"}'
    headers = dict(SCHEME.sign(body, SECRET, int(time.time())))
    event_id = HTTP.post(many.site.url() + "/webhooks/stripe", content=body, headers=headers).json()["id"]
    event = many.site.get(f"/events/{event_id}")
    assert event["name"] == "stripe/unknown"
    assert f"tidegate requests raw {event['request_id']}" in many.site.cli("events", "show", event_id)
    assert "requests raw" not in many.site.cli("events", "show", sent(many, "own/unknown"))


def test_a_long_key_is_shortened_in_the_table_only(many):
    event_id = sent(many, "own/long-key", id="k" * 100)
    listed = many.site.cli("events", "--name", "own/long-key")
    assert "k" * 39 + "…" in listed
    assert "k" * 40 not in listed
    assert "k" * 100 in many.site.cli("events", "show", event_id)


def test_a_file_without_an_event_is_told_as_such(many):
    (many.site.folder / "empty.jsonl").write_text("\n")
    assert many.site.cli("send", "--file", "empty.jsonl").strip().endswith("empty.jsonl holds no event; nothing was sent.")


def test_the_filters_say_what_they_take(many):
    for command, words in (
        ("runs", ("queued, running, waiting, succeeded, failed, cancelled", "--function")),
        ("requests", ("accepted, duplicate or quarantined", "no_match")),
        ("events", ("stripe/invoice.paid", "--cursor")),
    ):
        said = " ".join(many.site.cli(command, "--help").replace("│", " ").split())
        for word in words:
            assert word in said
