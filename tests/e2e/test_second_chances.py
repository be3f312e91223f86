"""Requests that were refused: why, in words; verified again once a secret is mended; discarded. And how many are kept."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from gateway.sdk.scheme import Hmac, Items
from tests.processes import HTTP, stripe_delivery, until

SCHEME = Hmac(header="Stripe-Signature", content="{timestamp}.{body}", items=Items(timestamp="t", signature="v1"))


def deliver(made, source: str, secret: str, key: str, port: int | None = None, ago: int = 0) -> str:
    """Post a delivery to a source; the request's id."""
    body, headers = stripe_delivery(key)
    headers |= dict(SCHEME.sign(body, secret, int(time.time()) - ago))
    return HTTP.post(f"{made.url(port)}/webhooks/{source}", content=body, headers=headers).headers["x-request-id"]


def request(many, request_id: str) -> dict:
    until(lambda: many.site.call("GET", f"/requests/{request_id}").status_code == 200)
    return many.site.get(f"/requests/{request_id}")


def make(many, name: str, *secrets: str) -> None:
    assert many.site.call("POST", "/sources", {"name": name, "provider": "stripe", "secrets": secrets}).status_code == 201


def runs_of(many, event_id: str) -> list[dict]:
    return many.site.get(f"/runs?event_id={event_id}&function=quick")["data"]


def test_a_wrong_secret_is_told_in_words_mended_and_everything_since_then_delivered_once_as_of_its_receipt(many):
    make(many, "mended", "whsec_wrong")
    first = deliver(many.site, "mended", "whsec_right", "evt_mended_1")
    request(many, first)
    since = datetime.now(UTC).isoformat()
    later = [deliver(many.site, "mended", "whsec_right", f"evt_mended_{n}") for n in (2, 3, 3)]
    forged = deliver(many.site, "mended", "whsec_of_nobody", "evt_forged")
    shown = request(many, forged)
    assert (shown["status"], shown["reason"]) == ("quarantined", "no_match")
    words = many.site.cli("requests", "show", later[0])
    assert "No live secret gives this signature: a wrong secret" in words
    said = many.site.cli("requests", "reprocess", later[0], code=1)
    assert f"1 still refused; see why: tidegate requests show {later[0]}" in said

    assert many.site.call("POST", "/sources/mended/secrets", {"secret": "whsec_right"}).status_code == 201
    assert "reprocess it" in request(many, later[0])["diagnosis"]
    done = json.loads(many.site.cli("requests", "reprocess", "--source", "mended", "--since", since, "--json"))["data"]
    assert {row["id"]: row["status"] for row in done} == {
        later[0]: "accepted", later[1]: "duplicate", later[2]: "accepted", forged: "quarantined",
    }  # fmt: skip
    assert request(many, first)["status"] == "quarantined", "it was before that time"
    [one] = json.loads(many.site.cli("requests", "reprocess", first, "--json"))["data"]
    event = many.site.get(f"/events/{one['event_id']}")
    received = request(many, first)
    assert (event["received_at"], event["request_id"], received["secret"]) == (received["received_at"], first, 1)
    [run] = runs_of(many, event["id"])
    assert run["created_at"] > event["received_at"], "a run is not older than its making"
    until(lambda: {row["status"] for row in runs_of(many, event["id"])} == {"succeeded"})

    again = many.site.call("POST", "/requests/reprocess", {"source": "mended"}).json()["data"]
    assert [row["id"] for row in again] == [forged]
    refused = many.site.call("POST", f"/requests/{first}/reprocess")
    assert (refused.status_code, "is accepted" in refused.json()["detail"]) == (409, True)
    assert len(many.site.get("/events?source=mended")["data"]) == 3
    assert len(runs_of(many, event["id"])) == 1


def test_many_who_reprocess_at_once_on_every_gateway_deliver_once(many):
    make(many, "crowded", "whsec_wrong")
    ids = [deliver(many.site, "crowded", "whsec_right", f"evt_crowded_{n}") for n in range(20)]
    for one in ids:
        request(many, one)
    many.site.call("POST", "/sources/crowded/secrets", {"secret": "whsec_right"})
    until(lambda: len(many.site.call("GET", "/sources/crowded", port=many.ports[1]).json().get("secrets", ())) == 2)
    with ThreadPoolExecutor(6) as pool:
        answers = list(
            pool.map(lambda n: many.site.call("POST", "/requests/reprocess", {"source": "crowded"}, port=many.ports[n % 2]), range(6))
        )
    assert {answer.status_code for answer in answers} == {200}
    accepted = [row["id"] for answer in answers for row in answer.json()["data"] if row["status"] == "accepted"]
    assert sorted(accepted) == sorted(ids)
    assert many.site.get("/events/count?source=crowded")["count"] == 20
    assert many.site.get("/deliveries/count?source=crowded&function=quick")["count"] == 20


def test_a_secret_that_had_expired_and_a_source_that_was_mixed_up_are_recognised(many):
    make(many, "diagnosed", "whsec_old")
    end = (datetime.now(UTC) - timedelta(seconds=5)).isoformat()
    body = {"secret": "whsec_newer", "expire_others_at": end}
    assert many.site.call("POST", "/sources/diagnosed/secrets", body).status_code == 201
    make(many, "its-neighbour", "whsec_neighbour")
    expired = request(many, deliver(many.site, "diagnosed", "whsec_old", "evt_expired"))
    assert "signed with secret 0, which had expired" in expired["diagnosis"]
    mixed_up = request(many, deliver(many.site, "diagnosed", "whsec_neighbour", "evt_mixed_up"))
    assert "a secret of the source 'its-neighbour'" in mixed_up["diagnosis"]
    late = request(many, deliver(many.site, "diagnosed", "whsec_newer", "evt_late", ago=3600))
    assert (late["reason"], "too old" in late["diagnosis"]) == ("timestamp_too_old", True)
    still = many.site.call("POST", f"/requests/{late['id']}/reprocess").json()
    assert (still["status"], still["reason"]) == ("quarantined", "timestamp_too_old")


def test_a_discarded_request_is_gone_and_only_a_quarantined_one_can_be_discarded(many):
    refused = deliver(many.site, "stripe", "whsec_wrong", "evt_discarded")
    request(many, refused)
    assert f"{refused} is gone" in many.site.cli("requests", "discard", refused)
    assert many.site.call("GET", f"/requests/{refused}").status_code == 404
    assert many.site.call("POST", f"/requests/{refused}/discard").status_code == 404
    good = deliver(many.site, "stripe", "whsec_test_not_a_real_secret", "evt_not_discarded")
    answer = many.site.call("POST", f"/requests/{good}/discard")
    assert (answer.status_code, "only a quarantined one" in answer.json()["detail"]) == (409, True)


def test_a_source_that_is_not_there_is_told_rather_than_nothing_found(many):
    answer = many.site.call("POST", "/requests/reprocess", {"source": "mendde"})
    assert (answer.status_code, "no source 'mendde'" in answer.json()["detail"]) == (409, True)


@pytest.mark.parametrize(("count", "pad", "kept"), [(30, 0, 10), (10, 4500, 4)], ids=["rate", "bytes"])
def test_a_flood_of_forgeries_is_kept_within_its_budget_and_crowds_out_nothing_good(tight, count, pad, kept):
    name = f"flooded-{count}"
    made = tight.call("POST", "/sources", {"name": name, "provider": "stripe", "secrets": ["whsec_good"]})
    assert made.status_code == 201
    url = f"{tight.url()}/webhooks/{name}"
    for n in range(count):
        body, headers = stripe_delivery(f"evt_flood_{n}", secret="whsec_forged", pad=pad)
        assert HTTP.post(url, content=body, headers=headers).status_code == 401
        good, signed = stripe_delivery(f"evt_good_{n}", secret="whsec_good")
        assert HTTP.post(url, content=good, headers=signed).status_code == 200
    until(lambda: tight.get(f"/requests/count?source={name}&status=quarantined")["count"] == kept)
    assert tight.get(f"/requests/count?source={name}&status=accepted")["count"] == count
