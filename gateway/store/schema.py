"""Bringing a database's schema to this version, and telling whether it is there."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.errors import SchemaMismatch, Unavailable
from gateway.store.database import Database, open_database

if TYPE_CHECKING:
    from sqlalchemy import Connection

MIGRATIONS = Path(__file__).parent / "migrations"
MIGRATION_LOCK = 7_431_288
REVISION = "select version_num from alembic_version"
HAS_REVISION = {
    "sqlite": "select 1 from sqlite_master where name = 'alembic_version'",
    "postgresql": "select 1 from pg_tables where tablename = 'alembic_version' and schemaname = any(current_schemas(false))",
}


def migrate(url: str) -> tuple[str | None, str]:
    """Bring the database to the newest schema; returns the revisions before and after. Safe to run from many places."""
    # Imported here, as SQLAlchemy is below: processes that only check do not carry them.
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import text

    if url.startswith("sqlite:///"):
        _private(_file(url))
    with _connect(url) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"select pg_advisory_xact_lock({MIGRATION_LOCK})"))
        before = _current(connection)
        _refuse_unknown(before)
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        return before, revisions()[-1]


def check(url: str) -> None:
    """Raises SchemaMismatch, with what to type, unless the database has the schema this version knows."""
    current = None
    if not url.startswith("sqlite:///") or (_file(url).exists() and _file(url).stat().st_size):
        with contextlib.closing(open_database(url)) as database:
            there = database.read(HAS_REVISION[database.dialect])
            current = database.read(REVISION)[0]["version_num"] if there else None
    _refuse_unknown(current)
    if current != revisions()[-1]:
        state = "has no Tidegate schema yet" if current is None else f"has the older schema {current}"
        raise SchemaMismatch(f"the database {state}; type: tidegate migrate")


def changed(database: Database) -> Unavailable | None:
    """What is wrong when a database was migrated under a running process, for whose statements its tables are no longer made."""
    try:
        current = database.read(REVISION)[0]["version_num"]
    except Unavailable as error:
        return error
    except Exception:  # the table that tells is gone, or empty
        current = "unknown"
    if current == revisions()[-1]:
        return None
    return Unavailable(f"the database has schema {current}, and this version of Tidegate knows {revisions()[-1]}", state="other_schema")


def revisions() -> list[str]:
    """The schemas this version knows, oldest first: what the files of migrations begin with."""
    return sorted(file.name.partition("_")[0] for file in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def _current(connection: Connection) -> str | None:
    from sqlalchemy import inspect, text

    return connection.execute(text(REVISION)).scalar() if inspect(connection).has_table("alembic_version") else None


def _refuse_unknown(current: str | None) -> None:
    if current is not None and current not in revisions():
        raise SchemaMismatch(f"the database has schema {current}, which is newer than this Tidegate; install the newer version")


def _file(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def _private(path: Path) -> None:
    """Make the database's folder and file for their owner only: payloads are in it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise Unavailable(f"SQLite: {path} cannot be written: {error.strerror}", state="read_only") from error


@contextlib.contextmanager
def _connect(url: str) -> Generator[Connection]:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=NullPool)
    try:
        with engine.begin() as connection:
            yield connection
    except SQLAlchemyError as error:
        raise _known(getattr(error, "orig", None) or error) from error


def _known(error: BaseException) -> Unavailable:
    from gateway.store.sqlite import translated

    found = translated(error) if isinstance(error, sqlite3.Error) else error
    return found if isinstance(found, Unavailable) else Unavailable(f"the database cannot be reached: {' '.join(str(error).split())}")
