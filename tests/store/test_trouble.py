"""The store in trouble: what is in trouble is named, said once, and over as soon as it is over; nothing acknowledged is lost."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gateway.errors import Unavailable
from gateway.ids import new_id
from gateway.store import health, schema
from gateway.store.admin import Replay
from gateway.store.database import Database, open_database
from gateway.store.inbox import Accept, EventRecord, NewDelivery, RequestRecord
from gateway.store.journal import Journal
from gateway.store.threaded import ThreadJournal
from gateway.telemetry import Telemetry
from tests.processes import until

NOW = 1_800_000_000_000_000


@dataclass
class Troubled:
    """A store, the facts its journal told, and which events it acknowledged."""

    database: Database
    journal: Journal
    facts: list[tuple[str, dict[str, Any]]]
    acknowledged: list[str] = field(default_factory=list[str])

    def accept(self, body: bytes = b"{}") -> str:
        key = new_id("k")
        request = RequestRecord(new_id("req"), "shop", NOW, "POST", "/webhooks/shop", b"[]", body, 0)
        event = EventRecord(new_id("evt"), "a/b", "shop", key, NOW, NOW, b"{}", request.id)
        command = Accept(event, (NewDelivery("f", 5, new_id("run")),), request)
        self.acknowledged.append(self.journal.submit(command).result(timeout=20).event_id)
        return self.acknowledged[-1]

    def refused(self, body: bytes = b"{}") -> str:
        """The state in which the store refuses; the next try finds out anew."""
        for _ in range(2000):
            try:
                self.accept(body)
            except Unavailable as error:
                self.journal.health._probe_at = 0
                return error.state
        raise AssertionError("the store took everything")

    def recovers(self) -> None:
        def works() -> bool:
            with contextlib.suppress(Unavailable):
                return bool(self.accept())
            return False

        until(works)
        events = {row["id"] for row in self.database.read("select id from events")}
        assert set(self.acknowledged) <= events

    @property
    def told(self) -> list[str]:
        return [f"{name} {facts['state']}" for name, facts in self.facts if name.startswith("store.")]


@contextlib.contextmanager
def troubled(url: str, migrate: bool = True) -> Iterator[Troubled]:
    if migrate:
        schema.migrate(url)
    facts: list[tuple[str, dict[str, Any]]] = []
    database = open_database(url)
    journal = ThreadJournal(database, Telemetry(lambda name, found: facts.append((name, found))))
    try:
        yield Troubled(database, journal, facts)
    finally:
        journal.close()
        database.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_named_and_over_once_there_is_space(small_disk):
    with troubled(f"sqlite:///{small_disk / 'tidegate.db'}") as store:
        store.accept()
        (small_disk / "ballast").write_bytes(b"x" * (2 << 20))
        assert store.refused(b'{"pad": "' + b"x" * 20_000 + b'"}') == "disk_full"
        assert store.refused(b'{"pad": "' + b"x" * 20_000 + b'"}') == "disk_full"
        (small_disk / "ballast").unlink()
        store.recovers()
        assert store.told[0] == "store.away disk_full"
        assert store.told[-1] == "store.back disk_full"


def test_a_read_only_file_system_is_named_and_over_once_it_is_not(small_disk):
    url = f"sqlite:///{small_disk / 'tidegate.db'}"
    with troubled(url) as store:
        store.accept()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(Unavailable, match="cannot be written") as caught:
        open_database(url)
    assert caught.value.state == "read_only"
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    with troubled(url, migrate=False) as store:
        store.recovers()


def test_a_lock_that_somebody_else_holds_is_named_and_said_once(tmp_path):
    path = tmp_path / "tidegate.db"
    with troubled(f"sqlite:///{path}") as store:
        store.accept()
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("begin immediate")
        for _ in range(3):
            assert store.refused() == "locked"
        other.execute("rollback")
        other.close()
        store.recovers()
        assert store.told == ["store.away locked", "store.back locked"]


def test_a_schema_that_has_changed_under_a_process_is_named_and_stays(database_url):
    def migrated(version: str, table: str, name: str) -> None:
        with store.database.transaction() as tx:
            tx.rows(f"update alembic_version set version_num = '{version}' returning version_num")
            tx.rows(f"alter table {table} rename to {name}")

    with troubled(database_url) as store:
        store.accept()
        migrated("9999", "idempotency_keys", "keys_of_tomorrow")
        assert store.refused() == "other_schema"
        assert store.refused() == "other_schema"
        migrated(schema.revisions()[-1], "keys_of_tomorrow", "idempotency_keys")
        store.accept()  # by luck
        with pytest.raises(Unavailable, match="9999"):
            store.journal.health.admit()
        assert store.told == ["store.away other_schema"]


def test_after_a_stop_the_file_alone_has_everything(tmp_path):
    with troubled(f"sqlite:///{tmp_path / 'tidegate.db'}") as store:
        for _ in range(20):
            store.accept()
        store.database.read("select count(*) as n from events")  # somebody reads, too, and is still there
        store.journal.close()
        store.database._close_file()
        shutil.copy(tmp_path / "tidegate.db", tmp_path / "copy.db")
        with contextlib.closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
            assert {id_ for (id_,) in copy.execute("select id from events")} == set(store.acknowledged)


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "tidegate.db"
    with troubled(f"sqlite:///{path}") as store:
        for _ in range(200):
            store.accept(b'{"pad": "' + b"x" * 3000 + b'"}')
        store.database._written.connection.execute("pragma wal_checkpoint(truncate)")
        store.database._close_file()
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (size - 4096))
        assert store.refused() == "corrupt"


def schemaless(folder: Path) -> bytes:
    with contextlib.closing(sqlite3.connect(folder / "schemaless.db")) as made:
        made.execute("create table other (x)")
    return (folder / "schemaless.db").read_bytes()


def test_a_backup_put_in_the_place_of_the_file_is_written_to_and_read_and_not_the_file_that_is_gone(tmp_path):
    path = tmp_path / "tidegate.db"
    with troubled(f"sqlite:///{path}") as store:
        store.accept()
        assert store.database.read("select count(*) as n from events") == [{"n": 1}]
        store.database._written.connection.execute("pragma wal_checkpoint(truncate)")
        shutil.copy(path, tmp_path / "backup.db")
        for leftover in tmp_path.glob("tidegate.db*"):
            leftover.unlink()
        assert store.refused() == "unreachable"
        for content in (b"", schemaless(tmp_path)):  # as while it is copied
            path.write_bytes(content)
            assert store.refused() == "unreachable"
            assert path.read_bytes()[100:] == content[100:]
        for leftover in tmp_path.glob("tidegate.db*"):
            leftover.unlink()
        (tmp_path / "backup.db").rename(path)
        store.recovers()
        assert store.database.read("select count(*) as n from events") == [{"n": 2}]
        assert sqlite3.connect(path).execute("select count(*) from events").fetchone() == (2,)


def test_while_the_store_is_away_callers_are_refused_at_once_but_for_one_now_and_then(tmp_path, monkeypatch):
    monkeypatch.setattr(health, "PROBE_SECONDS", 3600)
    path = tmp_path / "tidegate.db"
    with troubled(f"sqlite:///{path}") as store:
        store.accept()
        path.rename(tmp_path / "away.db")
        with pytest.raises(Unavailable):
            store.accept()
        tries = []
        monkeypatch.setattr(store.database, "transaction", lambda: tries.append(1))
        for _ in range(50):
            with pytest.raises(Unavailable):
                store.accept()
        assert tries == []


def test_no_connection_left_is_named(postgres_url):
    base = psycopg.conninfo.conninfo_to_dict(postgres_url)
    role = f"few_{base['dbname']}"
    with psycopg.connect(postgres_url, autocommit=True) as control:
        control.execute(f"create role {role} login connection limit 2")
        control.execute(f"alter database {base['dbname']} owner to {role}")
        control.execute(f"grant all on schema public to {role}")
    few = psycopg.conninfo.make_conninfo(**{**base, "user": role})
    url = postgres_url.replace("postgres:@", f"{role}@", 1)
    with troubled(url) as store:
        store.accept()
        others: list[psycopg.Connection[Any]] = []

        def all_taken() -> bool:
            # The store may be quicker: a wake-up for what was accepted opens a connection, too.
            with psycopg.connect(postgres_url, autocommit=True) as control:
                mine = [other.info.backend_pid for other in others]
                ended = "select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = %s and pid <> all(%s)"
                control.execute(ended, [role, mine])
            with contextlib.suppress(psycopg.OperationalError):
                while len(others) < 2:
                    others.append(psycopg.connect(few))
            return len(others) == 2

        until(all_taken)
        assert store.refused() == "too_many_connections"
        for other in others:
            other.close()
        store.recovers()


@dataclass
class Proxy:
    """A server before PostgreSQL's socket that can cut a connection in the middle of a commit."""

    target: str
    cut: str = ""

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self.target)
            for source, sink, hook in ((client, server, self._outgoing), (server, client, None)):
                threading.Thread(target=self._pump, args=(source, sink, hook), daemon=True).start()

    def _outgoing(self, data: bytes, client: socket.socket, server: socket.socket) -> bool:
        """Whether to cut now: `before` the server sees the commit, or `after` it has carried it out."""
        if b"COMMIT" not in data or not self.cut:
            return False
        when, self.cut = self.cut, ""
        if when == "after":
            server.sendall(data)
            client.shutdown(socket.SHUT_WR)
            threading.Event().wait(0.3)
        return True

    def _pump(self, source: socket.socket, sink: socket.socket, hook: Callable[..., bool] | None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if hook is not None and hook(data, source, sink):
                    break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.fixture
def proxied(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Proxy]]:
    folder = tmp_path_factory.mktemp("p")
    real = psycopg.conninfo.conninfo_to_dict(postgres_url)
    port = real.get("port", "5432")
    if not str(real.get("host", "")).startswith("/"):
        pytest.skip("the proxy stands before a socket file")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / f".s.PGSQL.{port}"))
    listener.listen()
    proxy = Proxy(f"{real['host']}/.s.PGSQL.{port}")
    threading.Thread(target=proxy.serve, args=(listener,), daemon=True).start()
    yield postgres_url.replace(str(real["host"]), str(folder)), proxy
    listener.close()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_connection_cut_in_the_middle_of_a_commit_does_each_thing_once_and_says_so(proxied, when):
    url, proxy = proxied
    with troubled(url) as store:
        event_id = store.accept()
        proxy.cut = when
        store.accept()
        assert proxy.cut == ""
        assert len(store.database.read("select id from events")) == 2
        proxy.cut = when
        replay = Replay(event_id, "rpl_1", (NewDelivery("f", 5, new_id("run")),), NOW)
        store.journal.submit(replay).result(timeout=20)
        assert proxy.cut == ""
        assert len(store.database.read("select id from runs")) == 3
        assert store.told == []


def test_a_child_that_outlives_a_killed_writer_holds_no_turn(tmp_path):
    """A user's function may fork; what it has left must not keep everybody else from writing."""
    url = f"sqlite:///{tmp_path / 'tidegate.db'}"
    program = f"""
import os, time
from gateway.store.database import open_database
with open_database({url!r}).transaction():
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    print(child, flush=True)
    time.sleep(60)
"""
    with troubled(url) as store:
        writer = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        child = int(writer.stdout.readline())
        try:
            writer.kill()
            writer.wait()
            store.recovers()
        finally:
            os.kill(child, signal.SIGKILL)
            writer.stdout.close()


def test_no_files_left_cost_a_wake_up_and_not_the_thread_that_wakes(tmp_path):
    url = f"sqlite:///{tmp_path / 'tidegate.db'}"
    with troubled(url) as store:
        woken = threading.Event()
        stop = store.database.listen(woken.set)
        store.accept()
        assert woken.wait(5)  # its wake-up comes behind its answer
        woken.clear()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            store.database.wake()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert not woken.is_set()
        store.database.wake()
        assert woken.wait(5)
        stop()


def test_a_checkpoint_that_fails_leaves_the_writer_as_patient_as_before(tmp_path):
    class Failing:
        def __init__(self, connection: sqlite3.Connection) -> None:
            self.connection = connection

        def execute(self, sql: str) -> sqlite3.Cursor:
            if "restart" in sql:
                raise sqlite3.OperationalError("disk I/O error")
            return self.connection.execute(sql)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.connection, name)

    with troubled(f"sqlite:///{tmp_path / 'tidegate.db'}") as store:
        store.accept()
        writer = store.database._written.connection
        before = writer.execute("pragma busy_timeout").fetchone()
        store.database._written._begin_log_anew(Failing(writer))
        assert writer.execute("pragma busy_timeout").fetchone() == before != (0,)
