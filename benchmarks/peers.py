"""Peers from PyPI on the same machine: empty functions, and functions of three empty steps, a second.

They are installed into an environment of their own by scripts/bench, and run there by the lower half of this file.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COUNT = 400


def main(python: str) -> None:
    """Run every peer with the interpreter of its environment."""
    from benchmarks.stage import databases, show

    with databases() as both, tempfile.TemporaryDirectory() as folder:
        postgres = both[1][1]
        for name, arguments in (
            ("dbos on SQLite", ["dbos", f"sqlite:///{folder}/dbos.db"]),
            ("dbos on PostgreSQL", ["dbos", postgres]),
            ("procrastinate on PostgreSQL", ["procrastinate", postgres]),
        ):
            done = subprocess.run([python, __file__, *arguments], capture_output=True, text=True, check=False)
            for line in done.stdout.splitlines():
                what, _, rate = line.partition("\t")
                if rate:
                    show(f"{name}: {what}", float(rate), "/s")
            if done.returncode:
                print(f"{name} failed: {done.stderr.strip().splitlines()[-1]}")


def _dbos(url: str) -> None:
    from dbos import DBOS  # type: ignore[import-not-found]

    DBOS(config={"name": "bench", "system_database_url": url, "run_admin_server": False, "log_level": "ERROR"})

    @DBOS.step()
    def step() -> None: ...

    @DBOS.workflow()
    def empty() -> None: ...

    @DBOS.workflow()
    def steps() -> None:
        step()
        step()
        step()

    DBOS.launch()
    DBOS.register_queue("bench")
    for what, function in (("empty functions", empty), ("functions of three steps", steps)):
        started = time.perf_counter()
        for handle in [DBOS.enqueue_workflow("bench", function) for _ in range(COUNT)]:
            handle.get_result()
        print(f"{what}\t{COUNT / (time.perf_counter() - started)}")
    DBOS.destroy()


async def _procrastinate(url: str) -> None:
    import procrastinate  # type: ignore[import-not-found]

    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url))

    @app.task(name="empty")
    async def empty() -> None: ...

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        for _ in range(COUNT):
            await empty.defer_async()
        started = time.perf_counter()
        await app.run_worker_async(wait=False, concurrency=100, install_signal_handlers=False)
        print(f"empty functions\t{COUNT / (time.perf_counter() - started)}")


if __name__ == "__main__":
    sys.path.remove(str(Path(__file__).parent))
    if sys.argv[1] == "dbos":
        _dbos(sys.argv[2])
    else:
        asyncio.run(_procrastinate(sys.argv[2]))
