"""PostgreSQL: few, fat transactions; many rows per statement by arrays and `unnest`; LISTEN and NOTIFY apart from them."""

from __future__ import annotations

import contextlib
import queue
import re
import select
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString, cast

import msgspec
import psycopg
from psycopg.rows import dict_row

from gateway.errors import StoreState, Unavailable
from gateway.store.accepting import ACCEPT, BYTES, DELIVERY_COLUMNS, WEBHOOK_COLUMNS
from gateway.store.database import Notify, Row

CHANNEL = "tidegate"
READERS = 4
RECONNECT_SECONDS = 1.0
OUTCOME_TRIES = 20
OUTCOME_SECONDS = 0.05


# Asked of the database, and not of the tables: SQLModel takes more memory than all the rest of a worker.
COLUMNS = (
    "select c.relname, a.attname, format_type(a.atttypid, null) from pg_attribute a join pg_class c on c.oid = a.attrelid"
    " where c.relnamespace = current_schema()::regnamespace and c.relkind = 'r' and a.attnum > 0 and not a.attisdropped"
)
WIDENED = {"integer": "bigint", "character varying": "text"}
# Every statement of a transaction is written for an index. Statistics from when the queue was empty, which is what they mostly
# are from, make PostgreSQL read and sort the whole of it for each claim once it is long: just when it must not.
PLANNING = "set enable_seqscan = off; set enable_bitmapscan = off; set jit = off"

_encode = msgspec.json.Encoder().encode

Types = Mapping[tuple[str, str], str]


def _types(connection: psycopg.Connection[Any]) -> Types:
    rows: list[tuple[str, str, str]] = connection.execute(COLUMNS).fetchall()
    return {(table, column): WIDENED.get(type_, type_) for table, column, type_ in rows}


class PostgresTransaction:
    """Statements on the writer's connection, each over whole columns."""

    def __init__(self, connection: psycopg.Connection[Any], pipeline: psycopg.Pipeline, types: Types) -> None:
        self._connection = connection
        self._types = types
        self._pipeline = pipeline
        self._send("begin", ())
        self._xid = self._send("select pg_current_xact_id()::text", ())
        self.backend = connection.info.backend_pid
        self.xid: str | None = None

    def know_xid(self) -> None:
        """Learn the transaction's id, which earlier answers have brought along, before it is committed."""
        if self.xid is None:
            self.flush()
            self.xid = self._xid.fetchall()[0][0]

    def commit(self) -> None:
        """Commit, and know that it is so. A statement like any other: the connection's own `commit` asks libpq first whether there
        is a transaction, which in pipeline mode does not know one of which it has read all answers but no end of a round trip."""
        self.know_xid()
        done = self._answered(self._send("COMMIT", ()))
        if done.statusmessage != "COMMIT":
            raise psycopg.InternalError(f"the server has answered {done.statusmessage} to a commit")

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        if rows:
            self._send(*self._insert_text(table, columns, rows))

    def insert_new(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> int:
        if not rows:
            return 0
        # One order for all writers: two gateways inserting the same keys must not wait for each other in a circle.
        sql, parameters = self._insert_text(table, columns, sorted(rows, key=lambda row: row[0]))
        return self._answered(self._send(f"{sql} on conflict do nothing", parameters)).rowcount

    def accept(self, webhooks: Iterable[Row], deliveries: Iterable[Row]) -> set[str]:
        records = [dict(zip(WEBHOOK_COLUMNS, row, strict=True)) for row in webhooks]
        raw = [[record.pop(column) for record in records] for column in BYTES]
        given = [dict(zip(DELIVERY_COLUMNS, row, strict=True)) for row in deliveries]
        return {row[0] for row in self._execute(ACCEPT, [_encode(records).decode(), *raw, _encode(given).decode()])}

    def update(self, table: str, keys: Sequence[str], columns: Sequence[str], rows: Sequence[Row]) -> set[Any]:
        if not rows:
            return set()
        sql, parameters = self._update_text(table, keys, columns, rows)
        return {row[0] for row in self._execute(f"{sql} returning t.{keys[0]}", parameters)}

    def write(self, table: str, keys: Sequence[str], columns: Sequence[str], rows: Sequence[Row]) -> None:
        if rows:
            self._send(*self._update_text(table, keys, columns, rows))

    def delete(self, table: str, keys: Sequence[str], rows: Sequence[Row]) -> set[Any]:
        if not rows:
            return set()
        given, parameters = self._arrays(table, keys, rows)
        condition = " and ".join(f"t.{key} = i.{key}" for key in keys)
        sql = f"delete from {table} t using {given} where {condition} returning t.{keys[0]}"
        return {row[0] for row in self._execute(sql, parameters)}

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._execute(translate(sql), parameters)

    def any_of(self, column: str, values: Sequence[Any]) -> tuple[str, list[Any]]:
        return f"{column} = any(?)", [list(values)]

    def clock(self, now: int) -> int:
        return self.rows("select (extract(epoch from clock_timestamp()) * 1000000)::bigint")[0][0]

    def for_update(self) -> str:
        return " for update"

    def mark(self) -> int:
        self._answered(self._xid)
        self.know_xid()
        assert self.xid is not None
        return int(self.xid)

    def horizon(self) -> int:
        return int(self.rows("select pg_snapshot_xmin(pg_current_snapshot())::text")[0][0])

    def skip_locked(self) -> str:
        return " for update skip locked"

    def _insert_text(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> tuple[str, list[Any]]:
        given, parameters = self._arrays(table, columns, rows)
        return f"insert into {table} ({', '.join(columns)}) select {', '.join(columns)} from {given}", parameters

    def _update_text(self, table: str, keys: Sequence[str], columns: Sequence[str], rows: Sequence[Row]) -> tuple[str, list[Any]]:
        given, parameters = self._arrays(table, [*keys, *columns], rows)
        sql = f"update {table} t set {', '.join(f'{c} = i.{c}' for c in columns)} from {given} where "
        return sql + " and ".join(f"t.{key} = i.{key}" for key in keys), parameters

    def _arrays(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> tuple[str, list[Any]]:
        places = ", ".join(f"%b::{self._types[table, column]}[]" for column in columns)
        return f"unnest({places}) as i({', '.join(columns)})", [list(column) for column in zip(*rows, strict=True)]

    def _execute(self, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        cursor = self._answered(self._send(sql, parameters))
        return cursor.fetchall() if cursor.description is not None else []

    def _send(self, sql: str, parameters: Sequence[Any]) -> psycopg.Cursor[Any]:
        return self._connection.execute(cast(LiteralString, sql), parameters)

    def _answered(self, cursor: psycopg.Cursor[Any]) -> psycopg.Cursor[Any]:
        self.flush()
        self._pipeline.sync()
        return cursor

    def flush(self) -> None:
        """Send all that was given. Psycopg waits for answers as soon as it has begun to send: where that is more than the
        socket takes, both sides would wait for ever (https://github.com/psycopg/psycopg/issues/685)."""
        connection = self._connection.pgconn
        while connection.flush():
            readable, _, _ = select.select([connection.socket], [connection.socket], [])
            if readable:
                connection.consume_input()


@dataclass(frozen=True, slots=True)
class _Writer:
    """The writer's connection, in pipeline mode for as long as it lives."""

    connection: psycopg.Connection[Any]
    pipeline: psycopg.Pipeline
    pipelining: contextlib.ExitStack

    def close(self) -> None:
        with contextlib.suppress(psycopg.Error):
            self.connection.close()
            self.pipelining.close()


class Postgres:
    """A database reached by URL: the writer's connection, a few for reads, one each to notify and to listen."""

    dialect = "postgresql"
    late: StoreState = "stalled"

    def __init__(self, url: str) -> None:
        self.url = url.replace("postgres://", "postgresql://", 1)
        self._writer: _Writer | None = None
        self._notifier: psycopg.Connection[Any] | None = None
        self._idle: queue.LifoQueue[psycopg.Connection[Any]] = queue.LifoQueue()
        self._readers = threading.BoundedSemaphore(READERS)
        self._closed = threading.Event()
        self._types: Types = {}

    @contextlib.contextmanager
    def transaction(self) -> Generator[PostgresTransaction]:
        made: PostgresTransaction | None = None
        try:
            writer = self._writer = self._writer or self._open_writer()
            connection = writer.connection
            try:
                made = PostgresTransaction(connection, writer.pipeline, self._types)
                yield made
                made.commit()
            except BaseException as error:
                self._abandon(writer)
                if made is None or made.xid is None or not _is_cut(error) or not self._was_committed(made.backend, made.xid):
                    raise
        except psycopg.Error as error:
            raise _translated(error) from error

    def _open_writer(self) -> _Writer:
        """A connection in pipeline mode, where what returns nothing is sent on without waiting for its answer. It stays so, and
        begins its transactions itself: psycopg would wait for an answer when either begins, and when the first one ends."""
        connection = self._connect()
        connection.execute(PLANNING)
        self._types = self._types or _types(connection)
        pipelining = contextlib.ExitStack()
        return _Writer(connection, pipelining.enter_context(connection.pipeline()), pipelining)

    def _abandon(self, writer: _Writer) -> None:
        try:
            writer.connection.rollback()
        except psycopg.Error:
            writer.close()
            self._writer = None

    def _was_committed(self, backend: int, xid: str) -> bool:
        """What became of a transaction whose connection broke while it was committed: asked of the server, not guessed.

        https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-SNAPSHOT, pg_xact_status
        """
        with self._connect() as connection:
            # Where the server has not noticed yet that its client is gone, the transaction would hold its locks.
            connection.execute("select pg_terminate_backend(%s)", [backend])
            for _ in range(OUTCOME_TRIES):
                row = connection.execute("select pg_xact_status(%s::xid8)", [xid]).fetchone()
                if row is None or row[0] != "in progress":
                    return row is not None and row[0] == "committed"
                time.sleep(OUTCOME_SECONDS)
        raise Unavailable("PostgreSQL: a transaction's outcome is not known yet", state="stalled")

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[Mapping[str, Any]]:
        with self._readers:
            try:
                return self._read_once(sql, parameters)
            except psycopg.OperationalError:
                # An idle connection may have died with a restarted server; a fresh one tells whether it is back.
                self._drop_idle()
            try:
                return self._read_once(sql, parameters)
            except psycopg.Error as error:
                raise _translated(error) from error

    def _read_once(self, sql: str, parameters: Sequence[Any]) -> list[Mapping[str, Any]]:
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            connection = self._connect()
        cursor = connection.cursor(row_factory=dict_row)
        rows = cursor.execute(cast(LiteralString, translate(sql)), parameters).fetchall()
        self._idle.put(connection)
        return cast(list[Mapping[str, Any]], rows)

    def _drop_idle(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    def after_commit(self, commands: int) -> None:
        return

    def wake(self) -> None:
        try:
            if self._notifier is None or self._notifier.closed:
                self._notifier = self._connect()
            self._notifier.execute(f"notify {CHANNEL}")
        except psycopg.Error:
            self._notifier = None  # polling finds what a lost wake-up did not

    def listen(self, on_wake: Notify) -> Callable[[], None]:
        stopped = threading.Event()

        def pump() -> None:
            while not stopped.is_set():
                try:
                    with self._connect() as connection:
                        connection.execute(f"listen {CHANNEL}")
                        on_wake()
                        while not stopped.is_set():
                            for _ in connection.notifies(timeout=1.0):
                                on_wake()
                except psycopg.Error:
                    stopped.wait(RECONNECT_SECONDS)

        threading.Thread(target=pump, name="wake-ups", daemon=True).start()
        return stopped.set

    def close(self) -> None:
        self._closed.set()
        self._drop_idle()
        for one in (self._writer, self._notifier):
            if one is not None:
                one.close()

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(
            self.url,
            autocommit=True,
            connect_timeout=2,
            tcp_user_timeout=5000,
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=3,
            application_name="tidegate",
        )


# https://www.postgresql.org/docs/current/errcodes-appendix.html, by the longest beginning that fits.
_STATES: Mapping[str, StoreState] = {
    "08": "unreachable",
    "25006": "read_only",
    "28": "unreachable",
    "3D": "unreachable",
    "40": "conflict",
    "53": "overloaded",
    "53100": "disk_full",
    "53300": "too_many_connections",
    "55P03": "locked",
    "57": "unreachable",
    "57014": "stalled",
    "58": "io_error",
    "XX001": "corrupt",
    "XX002": "corrupt",
}


def _translated(error: psycopg.Error) -> Exception:
    """The error as the rest of Tidegate knows it: Unavailable for a store in trouble, itself for anything else."""
    text = " ".join(str(error).split())
    code = error.sqlstate or ""
    state: StoreState | None = next((_STATES[code[:n]] for n in (5, 2) if code[:n] in _STATES), None)
    if state is None and not code and isinstance(error, psycopg.OperationalError):
        # A connection that is refused comes without a code: only its words tell why.
        full = any(words in text for words in ("too many clients", "too many connections", "connection slots"))
        state = "too_many_connections" if full else "unreachable"
    return error if state is None else Unavailable(f"PostgreSQL: {text}", state=state)


def _is_cut(error: BaseException) -> bool:
    """Whether the connection broke, so that the server may or may not have done what it was asked."""
    return isinstance(error, psycopg.OperationalError) and (error.sqlstate or "08")[:2] in ("08", "57")


def translate(sql: str) -> str:
    """`?` places as psycopg's."""
    return re.sub(r"\?", "%s", sql.replace("%", "%%"))
