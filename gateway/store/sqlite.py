"""SQLite: one file, WAL, synchronous=FULL, and several processes that take turns by an advisory lock."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import sqlite3
import threading
import weakref
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gateway.errors import StoreState, Unavailable
from gateway.store.checkpoints import LOG_BYTES, WrittenFile
from gateway.store.database import Notify, Row

BUSY_MS = 1000
ROWS = 128


# https://www.sqlite.org/rescode.html, primary codes. Any other is a fault of a statement, and not of the store.
_STATES: Mapping[int, StoreState] = {
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_PROTOCOL: "locked",
    sqlite3.SQLITE_FULL: "disk_full",
    sqlite3.SQLITE_READONLY: "read_only",
    sqlite3.SQLITE_PERM: "read_only",
    sqlite3.SQLITE_IOERR: "io_error",
    sqlite3.SQLITE_CORRUPT: "corrupt",
    sqlite3.SQLITE_NOTADB: "corrupt",
    sqlite3.SQLITE_CANTOPEN: "unreachable",
    sqlite3.SQLITE_NOMEM: "overloaded",
}


def translated(error: sqlite3.Error) -> Exception:
    """The error as the rest of Tidegate knows it: Unavailable for a store in trouble, itself for anything else."""
    code = getattr(error, "sqlite_errorcode", None)
    state = _STATES.get(code & 0xFF) if code is not None else None
    return error if state is None else Unavailable(f"SQLite: {error}", state=state)


class SQLiteTransaction:
    """Statements on the writer's connection."""

    def __init__(self, connection: sqlite3.Connection, texts: dict[tuple[Any, ...], str]) -> None:
        self._connection = connection
        self._texts = texts

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        self._insert(table, columns, rows, "")

    def insert_new(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> int:
        return self._insert(table, columns, rows, " on conflict do nothing")

    def _insert(self, table: str, columns: Sequence[str], rows: Sequence[Row], ending: str) -> int:
        # Many rows in a statement: every step of SQLite gives up the interpreter's lock, and getting it back from a busy
        # event loop takes longer than the insert.
        inserted = 0
        for start in range(0, len(rows), ROWS):
            chunk = rows[start : start + ROWS]
            sql = self._insert_text(table, columns, len(chunk), ending)
            inserted += self._connection.execute(sql, [value for row in chunk for value in row]).rowcount
        return inserted

    def accept(self, webhooks: Iterable[Row], deliveries: Iterable[Row]) -> set[str]:
        return set()  # a statement for each table is the shortest

    def update(self, table: str, keys: Sequence[str], columns: Sequence[str], rows: Sequence[Row]) -> set[Any]:
        text = ("update", table, *keys, *columns)
        sql = self._texts.get(text)
        if sql is None:
            places = {name: f"?{i}" for i, name in enumerate([*keys, *columns], 1)}
            assignments = ", ".join(f"{name} = {places[name]}" for name in columns)
            condition = " and ".join(f"{name} = {places[name]}" for name in keys)
            sql = f"update {table} set {assignments} where {condition} returning {keys[0]}"
            self._texts[text] = sql
        execute = self._connection.execute
        return {found[0] for row in rows for found in execute(sql, row).fetchall()}

    def write(self, table: str, keys: Sequence[str], columns: Sequence[str], rows: Sequence[Row]) -> None:
        self.update(table, keys, columns, rows)

    def delete(self, table: str, keys: Sequence[str], rows: Sequence[Row]) -> set[Any]:
        condition = " and ".join(f"{name} = ?" for name in keys)
        sql = f"delete from {table} where {condition} returning {keys[0]}"
        execute = self._connection.execute
        return {found[0] for row in rows for found in execute(sql, row).fetchall()}

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, parameters).fetchall()

    def any_of(self, column: str, values: Sequence[Any]) -> tuple[str, list[Any]]:
        return f"{column} in ({', '.join('?' * len(values))})", list(values)

    def clock(self, now: int) -> int:
        return now

    def for_update(self) -> str:
        return ""

    def mark(self) -> int:
        return 1

    def horizon(self) -> int:
        return 1

    def skip_locked(self) -> str:
        return ""

    def _insert_text(self, table: str, columns: Sequence[str], count: int, ending: str) -> str:
        text = (table, *columns, count, ending)
        sql = self._texts.get(text)
        if sql is None:
            row = f"({', '.join('?' * len(columns))})"
            sql = f"insert into {table} ({', '.join(columns)}) values {', '.join([row] * count)}{ending}"
            self._texts[text] = sql
        return sql


class SQLite:
    """A database file, its turn lock and its wake-up sockets, all in one directory."""

    dialect = "sqlite"
    late: StoreState = "stalled"

    def __init__(self, url: str) -> None:
        self.url = url
        self.path = Path(url.removeprefix("sqlite:///"))
        self._wake_dir = self.path.parent / "wake"
        try:
            self._wake_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._turn = os.open(self.path.with_suffix(".turn"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Unavailable(f"SQLite: {self.path.parent} cannot be written: {error.strerror}", state="read_only") from error
        os.register_at_fork(after_in_child=partial(_leave_turn, weakref.ref(self)))
        self._written: WrittenFile | None = None
        self._readers = threading.local()
        self._closed = False
        self._texts: dict[tuple[Any, ...], str] = {}

    @contextlib.contextmanager
    def transaction(self) -> Generator[SQLiteTransaction]:
        try:
            with self._turn_taken():
                connection = self._written_file().connection
                connection.execute("begin immediate")
                try:
                    yield SQLiteTransaction(connection, self._texts)
                    connection.execute("commit")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("rollback")
                    raise
        except sqlite3.Error as error:
            raise translated(error) from error

    def _written_file(self) -> WrittenFile:
        """The file that stands there now: an operator may have put back a backup, and what is written to a file that was replaced
        or removed is lost."""
        identity = self._there()
        if self._written is not None and self._written.identity != identity:
            self._close_file()
        if self._written is None:
            self._written = WrittenFile(self.path, identity, self._connect, self._turn_taken)
        return self._written

    def _close_file(self) -> None:
        if self._written is not None:
            self._written.close()
            self._written = None

    def _there(self) -> tuple[int, int]:
        """Which file stands there now; one that is empty is on its way, and is not to be written to."""
        try:
            found = os.stat(self.path)
        except OSError as error:
            raise Unavailable(f"SQLite: {self.path.name} {error.strerror}", state="unreachable") from error
        if not found.st_size:
            raise Unavailable(f"SQLite: {self.path.name} is empty", state="unreachable")
        return found.st_dev, found.st_ino

    @contextlib.contextmanager
    def _turn_taken(self) -> Generator[None]:
        # The kernel hands this lock over fairly and frees it when its holder dies; SQLite's busy handler sleeps
        # while the other process takes every gap.
        self.late = "locked"
        fcntl.flock(self._turn, fcntl.LOCK_EX)
        self.late = "stalled"
        try:
            yield
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[Mapping[str, Any]]:
        try:
            cursor = self._reader_of_the_file().execute(sql, parameters)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        except sqlite3.Error as error:
            self._readers.connection = None
            raise translated(error) from error

    def _reader_of_the_file(self) -> sqlite3.Connection:
        """This thread's connection, to the file that stands there now."""
        file = self._there()
        connection: sqlite3.Connection | None = getattr(self._readers, "connection", None)
        if connection is None or self._readers.file != file:
            connection = self._connect()
            connection.execute("pragma query_only = on")
            connection.execute("pragma cache_size = -2048")  # each thread that reads has a connection
            self._readers.connection, self._readers.file = connection, file
        return connection

    def after_commit(self, commands: int) -> None:
        if self._written is not None:
            self._written.after_commit(commands)

    def wake(self) -> None:
        # Polling finds what a lost wake-up did not, when there are no more files to be opened.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            for path in self._wake_dir.glob("*.sock"):
                try:
                    sender.sendto(b"!", os.path.relpath(path))
                except ConnectionRefusedError:
                    path.unlink(missing_ok=True)
                except OSError:
                    continue

    def listen(self, on_wake: Notify) -> Callable[[], None]:
        path = self._wake_dir / f"{os.getpid()}-{id(on_wake):x}.sock"
        path.unlink(missing_ok=True)
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        receiver.bind(os.path.relpath(path))

        def pump() -> None:
            with contextlib.suppress(OSError):
                while receiver.recv(1) == b"!":
                    on_wake()
            receiver.close()

        threading.Thread(target=pump, name="wake-ups", daemon=True).start()

        def stop() -> None:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.sendto(b".", os.path.relpath(path))
            path.unlink(missing_ok=True)

        return stop

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._close_file()
            os.close(self._turn)

    def leave_turn(self) -> None:
        """In a forked child, which shares the lock and would keep it when this process is killed: it is no writer."""
        if not self._closed:
            self._closed = True
            os.close(self._turn)
            self._turn = -1

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote(str(self.path))}?mode=rw",
            uri=True,
            timeout=BUSY_MS / 1000,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=1024,
        )
        for pragma in (
            "journal_mode = wal",
            "synchronous = full",
            "wal_autocheckpoint = 0",
            f"journal_size_limit = {LOG_BYTES}",
            "cache_size = -65536",
            "temp_store = memory",
        ):
            connection.execute(f"pragma {pragma}")
        return connection


def _leave_turn(reference: weakref.ref[SQLite]) -> None:
    database = reference()
    if database is not None:
        database.leave_turn()
