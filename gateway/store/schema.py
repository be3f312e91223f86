"""Bringing a database's schema to this version, and telling whether it is there."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from gateway.errors import SchemaMismatch, Unavailable

MIGRATION_LOCK = 7_431_288


def migrate(url: str) -> tuple[str | None, str]:
    """Bring the database to the newest schema; returns the revisions before and after. Safe to run from many places."""
    with _connect(url) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"select pg_advisory_xact_lock({MIGRATION_LOCK})"))
        before = MigrationContext.configure(connection).get_current_revision()
        config = _config()
        config.attributes["connection"] = connection
        _refuse_unknown(config, before)
        command.upgrade(config, "head")
        return before, _head(config)


def check(url: str) -> None:
    """Raises SchemaMismatch, with what to type, unless the database has the schema this version knows."""
    with _connect(url) as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    config = _config()
    _refuse_unknown(config, current)
    if current != _head(config):
        state = "has no Tidegate schema yet" if current is None else f"has the older schema {current}"
        raise SchemaMismatch(f"the database {state}; type: tidegate migrate")


def _refuse_unknown(config: Config, current: str | None) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if current is not None and current not in known:
        raise SchemaMismatch(f"the database has schema {current}, which is newer than this Tidegate; install the newer version")


@contextlib.contextmanager
def _connect(url: str) -> Generator[Connection]:
    if url.startswith("sqlite:///"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=NullPool)
    try:
        with engine.begin() as connection:
            yield connection
    except SQLAlchemyError as error:
        raise Unavailable(f"the database cannot be reached: {getattr(error, 'orig', error)}".strip()) from error


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def _head(config: Config) -> str:
    return ScriptDirectory.from_config(config).get_current_head() or ""
