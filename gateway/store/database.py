"""One database, two dialects: everything in which SQLite and PostgreSQL differ stands in this seam and its two files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from gateway.errors import StoreState

Row = Sequence[Any]
Notify = Callable[[], None]


class Transaction(Protocol):
    """The writer's open transaction; statements are written with `?` for parameters."""

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Insert many rows."""
        ...

    def insert_new(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> int:
        """Insert the rows that clash with none that is there; returns how many."""
        ...

    def accept(self, webhooks: Iterable[Row], deliveries: Iterable[Row]) -> set[str]:
        """Keep webhooks and their deliveries (`accepting.WEBHOOK_COLUMNS`, `DELIVERY_COLUMNS`), where there is a shorter way for those that
        are new. Returns the ids of the events that are kept; the rest is left to be looked at."""
        ...

    def update(self, table: str, keys: Sequence[str], columns: Sequence[str], rows: Sequence[Row]) -> set[Any]:
        """Set `columns` of the rows whose `keys` match; each row is key values, then new values. Returns the first keys."""
        ...

    def write(self, table: str, keys: Sequence[str], columns: Sequence[str], rows: Sequence[Row]) -> None:
        """As `update`, where nobody asks which rows were there."""
        ...

    def delete(self, table: str, keys: Sequence[str], rows: Sequence[Row]) -> set[Any]:
        """Delete the rows whose `keys` match; returns the first key of each row that was there."""
        ...

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run any statement and return its rows."""
        ...

    def any_of(self, column: str, values: Sequence[Any]) -> tuple[str, list[Any]]:
        """A condition that `column` is one of `values`, and its parameters."""
        ...

    def clock(self, now: int) -> int:
        """What time leases are judged by, in microseconds: the database's clock where several machines share it."""
        ...

    def for_update(self) -> str:
        """What to append to a select whose rows nobody else may change before this transaction ends."""
        ...

    def mark(self) -> int:
        """This transaction's place, from 1: those behind it see what was committed before it began."""
        ...

    def horizon(self) -> int:
        """Every transaction whose place is below this has ended."""
        ...

    def skip_locked(self) -> str:
        """What to append to a select whose rows are to be locked, passing over those another transaction holds."""
        ...


class Database(Protocol):
    """A place that keeps Tidegate's tables. Errors of the driver leave it as Unavailable.

    `late`: what is wrong while a transaction does not come to its end.
    """

    url: str
    dialect: str
    late: StoreState

    def transaction(self) -> AbstractContextManager[Transaction]:
        """The writer's transaction, flushed to disk when the block ends; used from the writer's thread only."""
        ...

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[Mapping[str, Any]]:
        """Rows of one read statement, by column name; from any thread."""
        ...

    def after_commit(self, commands: int) -> None:
        """Housekeeping between transactions, in the writer's thread; the last one was of so many commands."""
        ...

    def wake(self) -> None:
        """Tell every waiting process that something is due; may be lost, is never waited for."""
        ...

    def listen(self, on_wake: Notify) -> Callable[[], None]:
        """Call `on_wake` (from a thread) at every wake-up until the returned function is called."""
        ...

    def close(self) -> None:
        """Close every connection."""
        ...


def open_database(url: str) -> Database:
    """The database at `sqlite:///path` or `postgresql://…`."""
    if url.startswith("sqlite:///"):
        from gateway.store.sqlite import SQLite

        return SQLite(url)
    from gateway.store.postgres import Postgres

    return Postgres(url)
