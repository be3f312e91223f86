"""The pytest plugin, in a pytest of its own: there when a test asks for it, and costing nothing when none does."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

USED = """
import datetime
import pytest
from gateway import Context, Event, function

@function(on="a/b")
async def f(ctx: Context[Event]) -> int:
    await ctx.step.sleep("long", days=3)
    return ctx.event.data

def test_runs(tidegate):
    before = tidegate.now
    assert tidegate.run(f, 5).output == 5
    assert tidegate.now - before == datetime.timedelta(days=3)

@pytest.mark.tidegate(at=datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC), seed=7)
def test_is_set_up_by_the_marker(tidegate):
    assert tidegate.now.year == 2030

@pytest.mark.tidegate(at=datetime.datetime(2030, 1, 1))
def test_refuses_a_time_without_a_zone(tidegate): ...
"""

UNUSED = """
import sys

def test_nothing_of_it_is_imported():
    assert "pytest_tidegate" in sys.modules
    assert [name for name in sys.modules if name.partition(".")[0] in ("gateway", "msgspec", "sqlalchemy", "litestar")] == []
"""


@pytest.fixture
def pytest_in(tmp_path):
    def run(text: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "test_it.py").write_text(text)
        (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers -p no:cacheprovider\nfilterwarnings = error\n")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        command = [sys.executable, "-m", "pytest", "-q", "test_it.py"]
        # Other plugins of this environment import what they like.
        environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "pytest_tidegate"}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)

    return run


def test_the_fixture_runs_functions_on_a_clock_of_its_own(pytest_in):
    done = pytest_in(USED)
    assert "2 passed, 1 error" in done.stdout, done.stdout
    assert "needs a datetime with a time zone" in done.stdout


def test_nothing_is_imported_when_no_test_asks(pytest_in):
    done = pytest_in(UNUSED)
    assert done.returncode == 0, done.stdout


def test_pytest_finds_the_plugin_by_itself(tidegate):
    assert tidegate.now.tzinfo is not None
