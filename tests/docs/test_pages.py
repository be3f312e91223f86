"""The pages say what the code says: whoever adds a setting, a command, a code or a metric is told here to write it down."""

from __future__ import annotations

import re
from typing import Any, get_args

import httpx
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway import settings
from gateway.api import events, inbound, listener, protocol, schemas
from gateway.core.states import diagram
from gateway.engine import local, runlog
from gateway.errors import SettingsError, StoreState
from gateway.observe.meter import OUTCOMES
from gateway.sdk import scheme
from gateway.sdk.scheme import Reason
from gateway.settings import Settings
from gateway.store import journal
from tests.docs.pages import PAGES, block_after, code, rows, section, table_in
from tests.docs.tables import TABLES
from tests.processes import API_KEY, ROOT

FIELDS = [name for name in Settings.__dataclass_fields__ if name != "sources"]


def test_every_setting_is_documented_with_its_default():
    documented = {code(row[0]): row for row in rows("configuration.md", "## Settings")}
    assert set(documented) == {f"TIDEGATE_{name.upper()}" for name in FIELDS}
    for name in FIELDS:
        _, in_file, default, *_ = documented[f"TIDEGATE_{name.upper()}"]
        value = getattr(Settings(), name)
        assert (code(in_file), default) == (name, "none" if value in ("", None, ()) else f"`{value}`")


def test_what_is_allowed_for_a_setting_is_taken_and_what_is_beyond_is_refused(tmp_path):
    bounds = {code(row[0]): re.findall(r"`([^`]+)`", row[3]) for row in rows("configuration.md", "## Settings") if row[3]}
    numbers = {f"TIDEGATE_{name.upper()}" for name in FIELDS if type(getattr(Settings(), name)) in (int, float)}
    assert set(bounds) == numbers
    for variable, (low, high) in bounds.items():
        settings.load({variable: low}, tmp_path)
        settings.load({variable: high}, tmp_path)
        for beyond in (f"-{low}" if low != "0" else "-1", str(int(float(high)) + 1)):
            with pytest.raises(SettingsError, match=variable):
                settings.load({variable: beyond}, tmp_path)


def test_every_variable_that_is_named_anywhere_is_one():
    known = {f"TIDEGATE_{name.upper()}" for name in FIELDS}
    for page in [*PAGES, ROOT / "Dockerfile", ROOT / "compose.yaml"]:
        assert set(re.findall(r"\bTIDEGATE_[A-Z_]*[A-Z]", page.read_text())) <= known, page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_between_pages_leads_somewhere(page):
    for target, _, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(#([^)\s]+))?\)", page.read_text()):
        file = page.parent / target if target else page
        assert file.exists(), target
        headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE) if anchor else []
        assert not anchor or anchor in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings], anchor


def test_the_diagram_of_a_runs_life_is_the_table_the_code_follows():
    assert block_after("concepts.md", "## The life of a run", "mermaid") == diagram()


def test_every_reason_and_outcome_is_explained():
    reasons, outcomes = (
        re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", part, re.MULTILINE)))
        for part in section("concepts.md", "## The life of a run").split("How an")
    )
    assert set(reasons) == set(re.findall(r"`(\w+)`", type_of(schemas.Run, "reason").__metadata__[0].description))
    assert set(outcomes) == set(get_args(type_of(schemas.Attempt, "outcome")))


def type_of(kind: type[msgspec.Struct], member: str) -> Any:
    return next(field.type for field in msgspec.structs.fields(kind) if field.name == member)


def test_every_prefix_of_an_id_is_explained():
    source = "".join(file.read_text() for file in (ROOT / "gateway").rglob("*.py"))
    assert set(re.findall(r"`(\w+)_`", section("concepts.md", "## Ids"))) == set(re.findall(r'(?:new_id|sibling)\("(\w+)"', source))


def test_every_state_of_the_store_says_what_to_do():
    headings = re.findall(r"^### (\w+)$", section("operations.md", "## When the database is in trouble"), re.MULTILINE)
    assert set(headings) == set(get_args(StoreState))


def test_every_reason_of_a_refusal_is_explained():
    assert {code(row[0]) for row in rows("operations.md", "## When webhooks are refused")} == set(get_args(Reason))


def test_every_metric_is_explained_with_its_labels(served):
    text = httpx.get(served.url() + "/metrics", headers={"Authorization": f"Bearer {API_KEY}"}).text
    found = {family.name + ("_total" if family.type == "counter" else "") for family in text_string_to_metric_families(text)}
    documented = {code(row[0]): re.findall(r"`(\w+)`", row[1]) for row in rows("operations.md", "## What to watch")}
    assert set(documented) == found
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = family.name + ("_total" if family.type == "counter" else "")
            assert set(sample.labels) - {"le"} == set(documented[name]), name


def test_every_outcome_that_is_counted_is_explained():
    meanings = {code(row[0]): row[2] for row in rows("operations.md", "## What to watch")}
    assert set(OUTCOMES.values()) <= set(re.findall(r"`(\w+)`", meanings["tidegate_attempts_total"]))


@pytest.mark.parametrize(("page", "heading"), TABLES)
def test_a_table_that_follows_the_code_is_as_the_code_is_now(page, heading):
    assert table_in(page, heading) == TABLES[page, heading](), f"docs/{page} is behind; type: python -m tests.docs.tables"


def test_every_test_that_a_promise_names_exists_and_every_promise_names_one():
    page = (ROOT / "docs" / "guarantees.md").read_text()
    there = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE)
    }
    assert set(re.findall(r"`(test_\w+)`", page)) <= there
    promises = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    assert [promise.partition(":")[0] for promise in promises] == [f"G{n}" for n in range(1, 12)]
    assert [promise.partition(":")[0] for promise in promises if "`test_" not in promise] == []


def test_every_limit_is_the_one_that_the_code_has():
    limits = {row[0]: row[1] for row in rows("guarantees.md", "### Limits")}
    assert limits == {
        "body of a webhook or call": f"`TIDEGATE_MAX_BODY_BYTES`, {Settings.max_body_bytes >> 20} MiB",
        "line and headers of a request": f"{inbound.MAX_HEAD_BYTES >> 10} KiB",
        "time for a body": f"{protocol.BODY_SECONDS:g} seconds",
        "connections of a gateway": f"{listener.MOST_CONNECTIONS:,}; fewer where the limit of open files is lower",
        "events in an array": f"{events.MAX_BATCH:,}",
        "requests pipelined behind one another": str(protocol.MOST_PIPELINED),
        "commands that wait to be written": f"{journal.MAX_QUEUED:,}",
        "live secrets of a source": str(schemas.MAX_SECRETS),
        "signatures in a header": str(scheme.MAX_SIGNATURES),
        "output of a run": f"{local.MAX_OUTPUT >> 20} MiB",
        "lines a run logs": f"{runlog.MAX_LINES:,} for each attempt",
    }
