"""Bringing a database's schema to this version, and telling whether it is there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from pathlib import Path

from sqlalchemy import Connection, create_engine, inspect, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from gateway.errors import SchemaMismatch, Unavailable

MIGRATIONS = Path(__file__).parent / "migrations"
MIGRATION_LOCK = 7_431_288


def migrate(url: str) -> tuple[str | None, str]:
    """Bring the database to the newest schema; returns the revisions before and after. Safe to run from many places."""
    # Imported here: processes that only check need not carry it.
    from alembic import command
    from alembic.config import Config

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
    if not url.startswith("sqlite:///") or _file(url).exists():
        with _connect(url) as connection:
            current = _current(connection)
    _refuse_unknown(current)
    if current != revisions()[-1]:
        state = "has no Tidegate schema yet" if current is None else f"has the older schema {current}"
        raise SchemaMismatch(f"the database {state}; type: tidegate migrate")


def revisions() -> list[str]:
    """The schemas this version knows, oldest first: what the files of migrations begin with."""
    return sorted(file.name.partition("_")[0] for file in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def _current(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("select version_num from alembic_version")).scalar()


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
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=NullPool)
    try:
        with engine.begin() as connection:
            yield connection
    except SQLAlchemyError as error:
        raise Unavailable(f"the database cannot be reached: {getattr(error, 'orig', error)}".strip()) from error
