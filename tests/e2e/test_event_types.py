"""Event types: what can come, what it looks like, and that the one fits the other."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

import jsonschema_rs
import msgspec

from gateway import codec
from gateway.api.example import example
from gateway.registry import load_providers

PROVIDERS = load_providers().providers


@dataclass
class Line:
    sku: str
    count: Annotated[int, msgspec.Meta(ge=1)]


@dataclass
class Order:
    at: Annotated[datetime, msgspec.Meta(tz=True)]
    lines: list[Line]
    state: Literal["open", "closed"]
    note: str | None
    paid: bool


class Node(msgspec.Struct):
    name: str
    children: list[Node]
    parent: Node | None


class Either(msgspec.Struct):
    one: int | list[str] | None
    other: float = 1.5


def test_every_type_that_a_provider_a_function_or_an_arrival_has_made_known_is_listed_with_who_listens(many):
    many.site.call("POST", "/events", {"name": "types/arrived"})
    listed = {row["name"]: row for row in many.site.get("/event-types")["data"]}
    for provider in PROVIDERS.values():
        assert {f"{provider.name}/{type_}" for type_ in provider.samples} <= set(listed)
        assert {kind.event_name for kind in provider.events} <= set(listed)
    assert {"user/created", "types/arrived"} <= set(listed)
    assert listed["user/created"]["functions"] == ["greet"]
    assert listed["stripe/charge.succeeded"]["functions"] == ["quick", "typed"]
    assert (listed["stripe/charge.succeeded"]["provider"], listed["user/created"]["provider"]) == ("stripe", None)
    assert many.site.get("/event-types/types/arrived")["count"] >= 1


def test_every_typed_event_has_a_schema_and_a_sample_that_fits_it_and_its_class(many):
    kinds = [kind for provider in PROVIDERS.values() for kind in provider.events]
    assert len(kinds) > 50
    for kind in kinds:
        shown = many.site.get(f"/event-types/{kind.event_name}")
        schema = jsonschema_rs.validator_for(shown["schema"])
        schema.validate(shown["sample"])
        assert not schema.is_valid([]), kind.event_name
        given = {"id": "", "name": kind.event_name, "source": "", "occurred_at": None, "received_at": None, "attributes": {}}
        assert kind.decode(msgspec.json.encode(shown["sample"]), **given).data is not None


def test_an_example_fits_its_schema_whatever_that_says():
    for kind in (Order, Node, Either, list[Node], dict[str, int], Literal["a", "b"], tuple[int, str]):
        schema = codec.schema(kind)
        jsonschema_rs.validator_for(schema).validate(example(schema))
    assert example(codec.schema(Order)) == {
        "at": "2026-11-24T08:00:00Z", "lines": [{"sku": "text", "count": 1}], "state": "closed", "note": "text", "paid": False,
    }  # fmt: skip


def test_an_own_event_has_its_classes_schema_and_sample(many):
    shown = many.site.get("/event-types/user/created")
    assert shown["sample"] == {"id": 7}
    assert shown["schema"]["$defs"]["User"]["properties"]["id"] == {"type": "integer"}


def test_a_type_nobody_knows_is_a_404(many):
    for name in ("no/such", "stripe", "stripe/*", "*/*"):
        answer = many.site.call("GET", f"/event-types/{name}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
