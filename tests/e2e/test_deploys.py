"""Workers with different code on one database: beside each other for good, and one after the other in a deploy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.processes import Site, until

HEAD = "from gateway import Context, function\n"
ONE = """
@function(on="own/{0}")
async def {0}(ctx: Context) -> str:
    return "{0}"
"""
SLEEPER = """
@function(id="sleeper", on="own/sleep", version={0})
async def sleeper_{0}(ctx: Context) -> int:
    await ctx.step.wait_for_signal("go", "go")
    return {0}
"""


@dataclass
class Fleet:
    """A gateway, and workers that are started with the functions given."""

    gateway: Site
    folder: Path
    workers: list[Site] = field(default_factory=list[Site])

    def worker(self, *functions: str, app: str = "local") -> Site:
        name = f"worker {len(list(self.folder.iterdir()))}"
        site = Site(self.folder / name, self.gateway.database_url, HEAD + "".join(functions), {"TIDEGATE_APP": app})
        site.start("worker")
        self.workers.append(site)
        return site

    def offered(self) -> set[str]:
        """Those of the test's functions that are offered; the examples that are shipped are there too."""
        return {function["id"] for function in self.gateway.get("/functions")["data"]} & {"f", "g", "sleeper", "removed"}

    def send(self, name: str) -> str:
        return self.gateway.call("POST", "/events", {"name": name, "data": {}}).json()["id"]

    def outputs(self, event_id: str) -> list[object]:
        """What the runs of an event have returned, once all have."""
        until(lambda: all(run["status"] == "succeeded" for run in self._runs(event_id)))
        return [self.gateway.get(f"/runs/{run['id']}")["output"] for run in self._runs(event_id)]

    def _runs(self, event_id: str) -> list[dict[str, str]]:
        return self.gateway.get(f"/runs?event_id={event_id}")["data"]


@pytest.fixture
def fleet(database_url: str, tmp_path: Path) -> Iterator[Fleet]:
    (tmp_path / "workers").mkdir()
    gateway = Site(tmp_path / "gateway", database_url, HEAD)
    assert gateway.run("migrate").returncode == 0
    gateway.start("gateway")
    gateway.wait_ready()
    made = Fleet(gateway, tmp_path / "workers")
    yield made
    for site in (*made.workers, gateway):
        site.stop()


@pytest.mark.parametrize("app", ["local", "apart"])
def test_a_worker_with_fewer_functions_takes_nothing_from_the_others(fleet, app):
    fleet.worker(ONE.format("f"), ONE.format("g"))
    until(lambda: fleet.offered() == {"f", "g"})
    few = fleet.worker(ONE.format("g"), app=app)
    until(lambda: "worker.started" in few.log("worker"))
    until(lambda: fleet.offered() == {"f", "g"})
    assert fleet.outputs(fleet.send("own/f")) == ["f"]
    few.stop()
    assert fleet.outputs(fleet.send("own/f")) == ["f"]
    assert fleet.outputs(fleet.send("own/g")) == ["g"]


def test_workers_of_two_apps_go_on_with_their_own_when_the_other_is_gone(fleet):
    first = fleet.worker(ONE.format("f"), app="one")
    fleet.worker(ONE.format("g"), app="two")
    until(lambda: fleet.offered() == {"f", "g"})
    first.stop()
    event_id = fleet.send("own/f")
    fleet.worker(ONE.format("f"), app="one")
    assert fleet.outputs(event_id) == ["f"], "it came while no worker of its app was there"


def test_in_a_rolling_deploy_old_runs_end_with_old_code_and_new_ones_begin_with_new_code(fleet):
    old = fleet.worker(SLEEPER.format(1), ONE.format("removed"))
    until(lambda: fleet.offered() == {"sleeper", "removed"})
    before = fleet.send("own/sleep")
    until(lambda: fleet.gateway.get("/runs?status=waiting")["data"])
    fleet.worker(SLEEPER.format(2))
    until(lambda: fleet.gateway.get("/functions/sleeper")["version"] == 2)
    after = fleet.send("own/sleep")
    until(lambda: len(fleet.gateway.get("/runs?status=waiting")["data"]) == 2)
    assert "nobody offers" not in fleet.gateway.cli("doctor")
    assert fleet.outputs(fleet.send("own/removed")) == ["removed"], "an old worker is there still"
    fleet.gateway.call("POST", "/signals/go", {"data": None})
    assert (fleet.outputs(before), fleet.outputs(after)) == ([1], [2])
    old.stop()
    until(lambda: fleet.offered() == {"sleeper"})
