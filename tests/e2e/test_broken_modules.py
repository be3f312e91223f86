"""A module that cannot be loaded is told of once, as its author would want it, whichever processes come upon it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.processes import Site, site, until

BROKEN = """
print("modules may print")

def mistake():
    return 1 / 0

mistake()
"""

LATE = """
from gateway import Context, function

@function(on="a/b")
async def late(ctx: Context) -> None:
    return None
"""
LATE_PROVIDER = """
from gateway import Hmac, Provider

class Late(Provider):
    name = "late"
    scheme = Hmac(header="X-Signature")
    type_at = "type"
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path, settings={"TIDEGATE_WORKERS": "2"}) as made:
        (tmp_path / "providers").mkdir()
        for folder in ("functions", "providers"):
            (tmp_path / folder / "wrong.py").write_text(BROKEN)
        yield made


def has(made: Site, path: str) -> bool:
    """Whether the API has this, while the gateway may be starting anew."""
    try:
        return bool(made.get(path))
    except httpx.HTTPError:
        return False


def told(served: Site, command: str, file: str) -> list[str]:
    return [line for line in served.log(command).splitlines() if '"module.broken"' in line and file in line]


def test_it_is_logged_once_with_the_authors_frames_only(served):
    served.start("serve")
    until(lambda: "LEFT OUT  functions/wrong.py" in served.log("serve"))
    until(lambda: served.log("serve").count('"worker started"') == 2)
    for file in ("functions/wrong.py", "providers/wrong.py"):
        (line,) = told(served, "serve", file)
        assert "in mistake" in line
        assert "registry.py" not in line
        assert "importlib" not in line


def test_a_reload_tells_only_what_is_new(served):
    served.start("dev")
    until(lambda: "LEFT OUT  functions/wrong.py" in served.log("dev"))
    until(lambda: served.log("dev").count('"worker started"') == 2)
    (served.folder / "functions" / "other.py").write_text("import no_such_module\n")
    until(lambda: served.log("dev").count('"worker started"') == 4)
    assert len(told(served, "dev", "functions/other.py")) == 1
    assert len(told(served, "dev", "functions/wrong.py")) == 1
    assert len(told(served, "dev", "providers/wrong.py")) == 1


def test_a_reload_names_all_that_is_left_out_and_no_more_what_is_mended(served):
    served.start("dev")
    until(lambda: "LEFT OUT  functions/wrong.py" in served.log("dev"))
    (served.folder / "functions" / "crash_functions.py").write_text(LATE)
    until(lambda: served.log("dev").count('"worker started"') == 4)
    for file in ("functions/wrong.py", "providers/wrong.py"):
        assert served.log("dev").count(f"LEFT OUT  {file}: ZeroDivisionError") == 2
    (served.folder / "functions" / "wrong.py").unlink()
    until(lambda: served.log("dev").count('"worker started"') == 6)
    assert served.log("dev").count("LEFT OUT  functions/wrong.py") == 2
    assert served.log("dev").count("LEFT OUT  providers/wrong.py") == 3


def test_a_source_of_a_provider_that_was_made_after_the_start_is_refused_with_what_to_do(served):
    served.start("serve")
    served.wait_ready()
    (served.folder / "providers" / "late.py").write_text(LATE_PROVIDER)
    said = " ".join(served.cli("sources", "add", "late", "--secret", "not-a-real-secret", code=1).split())
    assert "There is no provider 'late'" in said
    assert "newer than the gateway? Start that again." in said


def test_a_source_whose_provider_is_left_out_points_to_the_file_and_offers_no_takeover(tmp_path):
    with site(tmp_path, settings={"LATE_WEBHOOK_SECRET": "not-a-real-secret"}) as made:
        (tmp_path / "providers").mkdir()
        (tmp_path / "providers" / "late.py").write_text(LATE_PROVIDER)
        made.run("migrate")
        gateway = made.start("gateway")
        made.wait_ready()
        gateway.terminate()
        gateway.wait()
        made.processes.remove(gateway)
        (tmp_path / "providers" / "late.py").write_text(LATE_PROVIDER.replace("type_at", "tipe_at"))
        made.start("gateway")
        made.wait_ready()
        said = " ".join(made.cli("trigger", "late", "order.made", code=1).split())
        assert said == "error: the source 'late' is left out: its configuration or its provider is at fault; see: tidegate doctor"
        assert "providers/late.py" in made.cli("doctor", code=1)


def test_a_reload_sees_a_folder_that_is_made_after_the_start(tmp_path):
    with site(tmp_path) as made:
        shutil.rmtree(tmp_path / "functions")
        made.start("dev")
        made.wait_ready()
        (tmp_path / "functions").mkdir()
        (tmp_path / "functions" / "late.py").write_text(LATE)
        until(lambda: has(made, "/functions/late"))
        (tmp_path / "providers").mkdir()
        (tmp_path / "providers" / "late.py").write_text(LATE_PROVIDER)
        until(lambda: has(made, "/providers/late"))


def test_a_worker_that_nobody_supervises_tells_it_itself(served):
    served.run("migrate")
    served.start("worker")
    until(lambda: '"worker started"' in served.log("worker"))
    assert len(told(served, "worker", "functions/wrong.py")) == 1


def test_serve_on_an_unmigrated_postgresql_says_what_to_type_and_nothing_else(tmp_path, postgres_url):
    with site(tmp_path, database_url=postgres_url) as made:
        process = made.start("serve")
        assert process.wait(timeout=30) == 78
        assert "tidegate migrate" in made.log("serve")
        assert "Traceback" not in made.log("serve")
