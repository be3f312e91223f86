"""What somebody has who installs Tidegate, and has no checkout: the wheel, and the project that `tidegate init` makes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from gateway import settings
from gateway.cli.init import SETTINGS, init
from gateway.errors import InvalidRequest
from gateway.settings import Settings
from tests.processes import ROOT, site


def test_a_new_project_is_run_as_it_stands(tmp_path):
    folder = tmp_path / "mine"
    init(folder)
    with site(folder, functions="# The functions here are those of the project.\n") as made:
        made.start("dev")
        made.wait_ready()
        assert made.run("send", "hello/said", "--data", '{"name": "Ada"}', "--id", "ada").returncode == 0
        followed = made.run("trigger", "stripe", "invoice.paid")
        assert (followed.returncode, "succeeded" in followed.stdout) == (0, True)
        [run] = made.get("/runs?function=greet&include=payload")["data"]
        assert run["output"] == {"greeting": "Hello, Ada!"}


@pytest.mark.parametrize("there", ["a file in it", "a file of its name"])
def test_nothing_that_is_there_is_written_over(tmp_path, there):
    folder = tmp_path / "mine"
    path = folder if there == "a file of its name" else folder / "functions"
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    with pytest.raises(InvalidRequest, match="not an empty folder; nothing was written"):
        init(folder)
    assert path.read_text() == "mine"
    assert sum(1 for _ in tmp_path.rglob("*")) == (1 if path is folder else 2)


def test_an_empty_folder_is_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    init(Path())
    assert (tmp_path / "functions" / "hello.py").exists()


@pytest.mark.parametrize("package", ["providers", "functions"])
def test_a_file_that_hides_what_is_installed_is_named_with_what_to_do(tmp_path, package):
    with site(tmp_path) as made:
        (tmp_path / package).mkdir(exist_ok=True)
        (tmp_path / package / "__init__.py").touch()
        told = made.run("doctor")
        assert (told.returncode, f"{package}/__init__.py: it hides" in told.stdout) == (1, True)


def test_an_own_provider_stands_beside_those_that_are_installed_or_takes_the_place_of_one(tmp_path):
    provider = 'from gateway import *\n\nclass Mine(Provider):\n    name, scheme, type_at = "{}", Hmac(header="X-Mine"), "type"\n'
    with site(tmp_path) as made:
        (tmp_path / "providers").mkdir()
        (tmp_path / "providers" / "mine.py").write_text(provider.format("mine"))
        (tmp_path / "providers" / "github.py").write_text(provider.format("github"))
        found = json.loads(made.run("providers", "--json").stdout)["data"]
        assert {one["name"]: one["events"] > 0 for one in found} == {"mine": False, "github": False, "stripe": True}
        assert "its name is taken by providers/github.py, which is kept" in made.run("doctor").stdout


def test_every_setting_the_project_shows_is_one_and_shows_its_default(tmp_path):
    shown = re.sub(r"^# (?=\[|\w+ = )", "", SETTINGS, flags=re.MULTILINE)
    (tmp_path / "tidegate.toml").write_text(shown)
    table = tomllib.loads(shown)
    loaded = settings.load({}, tmp_path)
    assert [source.name for source in loaded.sources] == list(table.pop("sources"))
    assert loaded.public_url == table.pop("public_url")
    assert {name: str(getattr(loaded, name)) for name in table} == {name: str(getattr(Settings(), name)) for name in table}


def test_the_wheel_has_everything_that_a_running_gateway_needs_and_no_examples(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=ROOT, check=True, capture_output=True
    )
    [wheel] = tmp_path.glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = [file for package in ("gateway", "providers") for file in (ROOT / package).rglob("*") if file.is_file()]
    needed = {str(file.relative_to(ROOT)) for file in files if file.parent.name != "__pycache__"}
    assert needed <= packed
    assert any("migrations/versions" in name for name in packed)
    # A file of this name would end the namespace: a user's own providers and functions would hide ours, or ours theirs.
    assert not packed & {"providers/__init__.py", "functions/__init__.py"}
    assert not [name for name in packed if name.startswith("functions/") and name.endswith("_example.py")]
