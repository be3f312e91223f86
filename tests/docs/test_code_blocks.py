"""What the pages show is tried: Python is loaded as Tidegate loads it, commands are parsed, and what is marked is run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from gateway import settings
from gateway.registry import load_functions, load_providers
from tests.docs.pages import blocks, commands, parse
from tests.processes import API_KEY, Site


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_in_the_pages_is_loaded_as_a_module_of_functions_or_providers(block, tmp_path):
    file = tmp_path / f"block_{block.page.stem}_{block.line}.py"
    file.write_text(block.text)
    is_provider = "(Provider):" in block.text
    registry = load_providers([tmp_path]) if is_provider else load_functions([tmp_path])
    assert [found.message for found in registry.broken if found.file == str(file)] == []
    assert str(tmp_path) in registry.places
    if is_provider or "@function" in block.text:
        found = registry.providers if is_provider else registry.functions
        assert str(file) in [sys.modules[getattr(value, "handler", type(value)).__module__].__file__ for value in found.values()]


@pytest.mark.parametrize("block", [block for block in blocks("python") if "\ndef test_" in block.text], ids=str)
def test_the_tests_in_the_pages_pass(block, tmp_path):
    (tmp_path / "test_block.py").write_text(block.text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--strict-markers", "-W", "error", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("block", blocks("sh"), ids=str)
def test_every_command_in_the_pages_is_one_with_these_options(block):
    for arguments in commands(block):
        try:
            parse(arguments)
        except typer.Exit:
            continue  # --help and --version
        except Exception as error:
            raise AssertionError(f"{block}: tidegate {' '.join(arguments)}: {getattr(error, 'message', error)}") from None


def test_a_command_that_is_none_is_found_out():
    for wrong in (["trigger"], ["events", "shwo", "x"], ["serve", "--prot", "1"], ["colour"]):
        with pytest.raises(Exception, match=r"(?i)missing|no such"):
            parse(wrong)


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_every_tidegate_toml_in_the_pages_is_read(block, tmp_path):
    (tmp_path / "tidegate.toml").write_text(block.text)
    settings.load({}, tmp_path)


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_json_in_the_pages_is_json(block):
    json.loads(block.text)


@pytest.mark.parametrize("block", blocks("sh", "run"), ids=str)
def test_what_is_marked_to_be_run_does_what_it_says(block, served):
    run(served, block.text)


def test_the_first_commands_of_the_readme_do_what_they_say(served):
    first = next(block for block in blocks("sh") if block.page.name == "README.md" and "tidegate trigger" in block.text)
    typed = [line for line in first.text.splitlines() if line.startswith("tidegate ")]
    said = run(served, "\n".join(typed))
    assert said.count("200, event evt_") == len(typed)
    assert "succeeded" in said


def run(served: Site, script: str) -> str:
    """What a script says, in the folder of a running Tidegate. Fails when it fails."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment |= {"TIDEGATE_URL": served.url(), "TIDEGATE_API_KEY": API_KEY}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=served.folder, env=environment, capture_output=True, text=True, timeout=60
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
