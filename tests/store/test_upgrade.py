"""Databases written under every earlier schema, brought to today's."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, Integer, LargeBinary, MetaData, create_engine
from sqlalchemy.types import BigInteger

from gateway.store import schema

MIGRATIONS = Path(schema.__file__).parent / "migrations"
RENAMED = {"workers": "processes", "apps": "manifests", "idempotency_keys": "idempotency_hashes"}
CHOICES = {"requests.status": "accepted", "steps.status": "succeeded", "outcome": "succeeded", "enabled": 1, "skip_reason": None}


def config() -> Config:
    made = Config()
    made.set_main_option("script_location", str(MIGRATIONS))
    return made


def revisions() -> list[str]:
    return [script.revision for script in reversed(list(ScriptDirectory.from_config(config()).walk_revisions()))]


def bring_to(engine: Engine, revision: str) -> None:
    with engine.begin() as connection:
        made = config()
        made.attributes["connection"] = connection
        command.upgrade(made, revision)


def value(table: str, name: str, type_: object, n: int) -> object:
    for known in (f"{table}.{name}", name):
        if known in CHOICES:
            return CHOICES[known]
    if isinstance(type_, LargeBinary):
        return f"{name} {n}".encode()
    return n + 1 if isinstance(type_, Integer | BigInteger) else f"{name} {n}"


def rows(connection: Connection, tables: MetaData) -> dict[str, list[dict[str, object]]]:
    return {name: [dict(row._mapping) for row in connection.execute(table.select())] for name, table in tables.tables.items()}


@pytest.mark.parametrize("revision", revisions()[:-1])
def test_an_upgrade_keeps_every_row_of_an_older_database(database_url, revision):
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://", 1))
    bring_to(engine, revision)
    tables = MetaData()
    tables.reflect(engine)
    with engine.begin() as connection:
        for name, table in tables.tables.items():
            if name != "alembic_version":
                for n in range(3):
                    connection.execute(table.insert().values({c.name: value(name, c.name, c.type, n) for c in table.columns}))
        before = rows(connection, tables)
    assert schema.migrate(database_url)[0] == revision
    schema.check(database_url)
    after = MetaData()
    after.reflect(engine)
    with engine.begin() as connection:
        now = rows(connection, after)
    engine.dispose()
    del before["alembic_version"]
    for name, old in before.items():
        kept_rows = now[RENAMED.get(name, name)]
        assert len(kept_rows) == len(old) == 3
        for row, kept in zip(old, kept_rows, strict=True):
            assert row.items() <= kept.items()
