"""Webhooks accepted a second (verified, deduplicated, one run each, flushed to disk) beside two Litestar handlers that do
nothing: one that never looks at the body, one that takes it as JSON. Then the latency at half of that load, and the memory
of an idle gateway and worker.

Baselines and gateway take turns in short rounds, so that a machine whose speed changes changes all.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.load import Load, drive, requests
from benchmarks.stage import baseline, databases, show, site, start_all, stop_worker
from tests.processes import Site

ROUNDS = 6
PATH = "/webhooks/stripe"


def main(count: int = 30_000) -> None:
    """Both databases."""
    with baseline("asgi") as port:
        drive(port, requests(500, PATH, "warm"))
        show("bare ASGI no-op", drive(port, requests(count, PATH, "asgi")).per_second, "/s")
    with databases() as both:
        for name, url in both:
            with site(url) as made:
                start_all(made)
                memory(f"{name}: memory of gateway and worker, idle", made)
                stop_worker(made)
                _ingest(name, made, count)


def _ingest(name: str, made: Site, count: int) -> None:
    with baseline("litestar") as bare, baseline("json") as json:
        turns = {"bare": bare, "json": json, "full": made.port, "scattered": made.port}
        for port in turns.values():
            drive(port, requests(500, PATH, "warm", scattered=True))
        loads: dict[str, list[Load]] = {name: [] for name in turns}
        for n in range(ROUNDS):
            for turn, port in turns.items():
                loads[turn].append(drive(port, requests(count // ROUNDS, PATH, f"{port}-{n}", scattered=turn == "scattered")))
    full, scattered = loads["full"], loads["scattered"]
    show(f"{name}: Litestar @post no-op that never looks at the body", rate(loads["bare"]), "/s")
    show(f"{name}: Litestar @post no-op that takes the body as JSON", rate(loads["json"]), "/s")
    for accepted, ids in ((full, "ids that count up"), (scattered, "ids at random")):
        note = f"{rate(accepted) / rate(loads['bare']):.2f} and {rate(accepted) / rate(loads['json']):.2f} of these no-ops"
        show(f"{name}: webhooks accepted, {ids}", rate(accepted), "/s", note)
    half = drive(made.port, requests(count // 2, PATH, "half"), rate=rate(full) / 2)
    show(f"{name}: p99 at half that load", half.p99_ms, "ms", f"{half.p99_ms / half.median_ms:.1f} times the median")
    refused = sum(load.refused for load in [*full, *scattered, half])
    if refused:
        print(f"{refused} REQUESTS WERE REFUSED:", made.log("gateway")[-2000:])


def rate(loads: list[Load]) -> float:
    """Requests a second over several loads of one size."""
    return len(loads) / sum(1 / load.per_second for load in loads)


def memory(name: str, made: Site) -> None:
    """Resident memory of the processes of a site, the gateway's writer included."""
    total = 0
    for pid in [*(process.pid for process in made.processes), *made.writers()]:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                total += int(line.split()[1])
    show(name, total / 1024, "MB")
