"""What the pages say about behaviour, tried over HTTP with the very functions and providers that they show."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
from dataclasses import MISSING
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from gateway import Hmac, function
from gateway.sdk.step import Steps
from tests.docs.pages import block_after, code, rows, section
from tests.processes import API_KEY, Site, post, site, stripe_delivery, until

AUTH = {"Authorization": f"Bearer {API_KEY}"}


def became(served: Site, name: str, data: Any) -> dict[str, Any]:
    """What became of an event, by function, once nothing is queued or running any more."""
    body = json.dumps({"name": name, "data": data})
    event = httpx.post(served.url() + "/api/v1/events", content=body, headers=AUTH).json()["id"]

    def deliveries() -> list[dict[str, Any]]:
        return served.get(f"/events/{event}/deliveries")["data"]

    until(lambda: all(one["status"] not in ("queued", "running") for one in deliveries()))
    return {one["function_id"]: one for one in deliveries()}


def test_everything_the_pages_show_is_loaded(served):
    ready = httpx.get(served.url() + "/readyz", headers=AUTH).json()
    assert (ready["status"], ready["broken"]) == ("ready", [])
    assert {"announce-push", "pack-order", "wrap-gift", "charge"} <= {one["id"] for one in served.get("/functions")["data"]}


def test_a_typed_function_gets_its_class_and_what_does_not_fit_fails_at_once_naming_the_path(served):
    packed = became(served, "shop/order.placed", {"id": 1, "more": True, "lines": [{"sku": "tea", "count": 2}, {"sku": "cup"}]})[
        "pack-order"
    ]
    assert served.get(f"/runs/{packed['run_id']}")["output"] == 3
    misfit = became(served, "shop/order.placed", {"id": "1", "lines": []})["pack-order"]
    assert (misfit["status"], misfit["attempts"]) == ("failed", 1)
    told = misfit["error"]["message"].split(": ", 1)[1]
    assert f"``{told} ``" in section("functions.md", "## Own events")


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        ({"id": 1, "total": 1001, "tags": ["gift"]}, "succeeded", None),
        ({"id": 1, "total": 5, "tags": ["gift"]}, "skipped", "if_false"),
        ({"id": 1, "tags": ["gift"]}, "skipped", "if_error: there is no"),
    ],
)
def test_a_condition_that_is_false_or_cannot_be_decided_is_a_skip_with_its_reason(served, data, status, reason):
    delivery = became(served, "shop/order.paid", data)["wrap-gift"]
    assert delivery["status"] == status
    assert reason is None or delivery["skip_reason"].startswith(reason)


def test_a_function_gives_up_or_chooses_its_time_as_shown(served):
    never = became(served, "invoice/due", {"amount": 0})["charge"]
    assert (never["status"], never["attempts"]) == ("failed", 1)
    later = became(served, "invoice/due", {"amount": 5})["charge"]
    wait = datetime.fromisoformat(later["next_attempt_at"]) - datetime.now(UTC)
    assert (later["status"], later["attempts"]) == ("waiting", 1)
    assert timedelta(minutes=4) < wait <= timedelta(minutes=5)


def test_what_a_run_logs_is_kept_with_it(served):
    run = became(served, "shop/order.paid", {"id": 7, "total": 2000, "tags": ["gift"]})["wrap-gift"]["run_id"]
    until(lambda: served.get(f"/runs/{run}/logs")["data"])
    [line] = served.get(f"/runs/{run}/logs")["data"]
    assert (line["level"], line["attempt"], line["message"]) == ("info", 1, "wrapping 7")


def test_a_run_sleeps_waits_and_goes_on_behind_its_steps_as_shown(served):
    sent = httpx.post(served.url() + "/api/v1/events", json={"name": "order/paid", "data": {"id": 5}}, headers=AUTH).json()["id"]

    def run() -> dict[str, Any]:
        return served.get(f"/runs?function=fulfil&event_id={sent}&include=payload")["data"][0]

    until(lambda: run()["reason"] == "event")
    became(served, "order/packed", {"id": 6})
    assert run()["status"] == "waiting"
    became(served, "order/packed", {"id": 5})
    until(lambda: run()["status"] == "succeeded")
    assert run()["output"] == "parcel 105"
    steps = served.get(f"/runs/{run()['id']}/steps")["data"]
    assert [(step["key"], step["attempts"]) for step in steps if step["kind"] == "run"] == [("reserve", 1), ("ship", 1)]
    until(lambda: served.get("/events?name=order/shipped")["data"])


def test_every_option_of_a_function_and_every_kind_of_step_is_explained():
    documented = {code(row[0]): row[1] for row in rows("functions.md", "## Options")}
    options = inspect.signature(function).parameters
    assert set(documented) == set(options)
    assert documented["retries"] == f"`{options['retries'].default}`"
    explained = re.findall(r"`(\w+)\(", " ".join(row[0] for row in rows("functions.md", "## Steps")))
    assert set(explained) == {name for name in vars(Steps) if not name.startswith("_")}


def test_every_provider_that_is_shown_and_has_samples_holds_up(served):
    for name in ("acme", "parcel"):
        tried = served.run("providers", "test", name)
        assert (tried.returncode, "WRONG" in tried.stdout) == (0, False)
        assert served.run("sources", "add", name, "--generate").returncode == 0
    type_, key = "parcel.sent", "1:sha256:"
    sent = httpx.post(served.url() + "/api/v1/sources/parcel/test", json={"type": type_}, headers=AUTH).json()
    event = served.get(f"/events/{sent['id']}")
    assert (event["name"], event["key"].startswith(key), event["data"]) == ("parcel/parcel.sent", True, {"number": "P-1"})


def test_every_option_of_a_scheme_is_explained_with_its_default():
    documented = {code(row[0]): row[1] for row in rows("providers.md", "## The scheme as data")}
    fields = {name: field.default for name, field in Hmac.__dataclass_fields__.items() if field.init}
    assert documented == {
        name: "" if value is MISSING else "none" if value is None else f"`{json.dumps(value)}`" for name, value in fields.items()
    }


def test_a_backup_made_as_shown_while_it_runs_is_restored_as_shown(served, tmp_path):
    event = httpx.post(served.url() + "/api/v1/events", content=b'{"name": "user/created"}', headers=AUTH).json()["id"]
    made = subprocess.run(
        ["bash", "-euc", block_after("operations.md", "### SQLite", "sh")], cwd=served.folder, check=True, capture_output=True
    )  # fmt: skip
    assert made.stdout == b"ok\n"
    with site(tmp_path / "restored") as restored:
        (restored.folder / "data").mkdir()
        shutil.copy(served.folder / "tidegate-backup.db", restored.folder / "data" / "tidegate.db")
        restored.start("serve")
        restored.wait_ready()
        assert restored.get(f"/events/{event}")["name"] == "user/created"


def test_without_the_master_key_a_source_refuses_and_keeps_everything_until_it_has_a_new_secret(tmp_path):
    with site(tmp_path / "before") as made:
        made.start("serve")
        made.wait_ready()
        assert made.run("sources", "add", "shop", "--provider", "stripe", "--secret", "whsec_old").returncode == 0
        key = httpx.post(made.url() + "/api/v1/keys", json={"name": "kept", "scopes": ["read"]}, headers=AUTH).json()["key"]
        made.stop()
        made.settings["TIDEGATE_MASTER_KEY"] = "another-master-key"
        made.start("serve")
        made.wait_ready()
        ready = httpx.get(made.url() + "/readyz", headers={"Authorization": f"Bearer {key}"}).json()
        assert (ready["status"], ["add-secret shop" in found["message"] for found in ready["broken"]]) == ("ready", [True])
        assert post(made.url(), "evt_configured").status_code == 200
        body, headers = stripe_delivery("evt_meanwhile", secret="whsec_new")
        assert httpx.post(made.url() + "/webhooks/shop", content=body, headers=headers).status_code == 401
        assert made.run("sources", "add-secret", "shop", "--secret", "whsec_new").returncode == 0
        assert made.run("requests", "reprocess", "--source", "shop").returncode == 0
        [event] = made.get("/events?source=shop")["data"]
        assert event["key"] == "evt_meanwhile"
