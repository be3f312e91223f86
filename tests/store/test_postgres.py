"""A transaction on PostgreSQL is committed when it says so, and is gone when it fails, however its answers come in."""

from __future__ import annotations

import contextlib

import pytest

from gateway.store import schema
from gateway.store.database import open_database

NOW = 1_800_000_000_000_000
COLUMNS = ("source_id", "n", "last_used_at")


@pytest.fixture
def database(postgres_url):
    schema.migrate(postgres_url)
    made = open_database(postgres_url)
    yield made
    made.close()


def insert(tx, name: str) -> None:
    """Insert a row, and let all answers come in before the end is asked for."""
    tx.insert("secret_uses", COLUMNS, [(name, 0, NOW)])
    tx.know_xid()
    while tx._pipeline.result_queue:
        tx._pipeline._conn.wait(tx._pipeline._fetch_gen(flush=True))


def kept(database) -> list[str]:
    return [row["source_id"] for row in database.read("select source_id from secret_uses order by source_id")]


def test_g1_a_transaction_that_asks_nothing_is_committed_when_it_says_so(database):
    for n in range(20):
        with database.transaction() as tx:
            insert(tx, f"s{n:02}")
        assert kept(database) == [f"s{m:02}" for m in range(n + 1)]


def test_g3_a_transaction_that_fails_leaves_nothing_for_the_next_one_to_commit(database):
    for n in range(20):
        with contextlib.suppress(LookupError), database.transaction() as tx:
            insert(tx, f"bad{n}")
            raise LookupError
        with database.transaction() as tx:
            insert(tx, f"s{n:02}")
        assert kept(database) == [f"s{m:02}" for m in range(n + 1)]
