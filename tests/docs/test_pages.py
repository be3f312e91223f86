"""The pages say what the code says: whoever adds a setting, a command, a code or a metric is told here to write it down."""

from __future__ import annotations

import re
from typing import Any, get_args

import msgspec
import pytest

from gateway import settings
from gateway.api import schemas
from gateway.core.states import diagram
from gateway.errors import SettingsError
from gateway.settings import Settings
from tests.docs.pages import PAGES, block_after, code, rows, section, table_in
from tests.docs.tables import TABLES
from tests.processes import ROOT

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
        re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE) for part in section("concepts.md", "## The life of a run").split("How an")
    )
    assert set(reasons) == set(re.findall(r"`(\w+)`", type_of(schemas.Run, "reason").__metadata__[0].description))
    assert set(outcomes) == set(get_args(type_of(schemas.Attempt, "outcome")))


def type_of(kind: type[msgspec.Struct], member: str) -> Any:
    return next(field.type for field in msgspec.structs.fields(kind) if field.name == member)


def test_every_prefix_of_an_id_is_explained():
    source = "".join(file.read_text() for file in (ROOT / "gateway").rglob("*.py"))
    assert set(re.findall(r"`(\w+)_`", section("concepts.md", "## Ids"))) == set(re.findall(r'(?:new_id|sibling)\("(\w+)"', source))


@pytest.mark.parametrize(("page", "heading"), TABLES)
def test_a_table_that_follows_the_code_is_as_the_code_is_now(page, heading):
    assert table_in(page, heading) == TABLES[page, heading](), f"docs/{page} is behind; type: python -m tests.docs.tables"
