"""The store's contract, on both databases."""

from __future__ import annotations

import threading

import psycopg
import pytest

from gateway.core.decide import Decision
from gateway.core.outcome import Failure
from gateway.core.spec import FunctionSpec, Manifest
from gateway.errors import Overloaded, SchemaMismatch
from gateway.ids import new_id
from gateway.store import journal as journal_module
from gateway.store import schema
from gateway.store.admin import CancelRun, Replay, RetryRun
from gateway.store.database import open_database
from gateway.store.inbox import Accept, AcceptMany, EventRecord, NewDelivery, RequestRecord
from gateway.store.journal import Journal
from gateway.store.offers import Publish
from gateway.store.reads import Query
from gateway.store.runs import Claim, Claimed, Finish, GiveBack, Heartbeat, Rescue
from gateway.store.threaded import ThreadJournal

NOW = 1_800_000_000_000_000
LEASE = 10_000_000


def accept(key: str, *, max_attempts: int = 5, body: bytes = b'{"n": 1}', functions: tuple[str, ...] = ("f",)) -> Accept:
    request = RequestRecord(new_id("req"), "shop", NOW, "POST", "/webhooks/shop", b"[]", body, 0)
    event = EventRecord(new_id("evt"), "a/b", "shop", key, NOW, NOW, b"{}", request.id)
    return Accept(event, tuple(NewDelivery(f, max_attempts, new_id("run")) for f in functions), request)


def finish(run: Claimed, decision: Decision, worker: str = "w1") -> Finish:
    return Finish(run.run_id, run.fence, run.attempt, worker, NOW, run.first_started_at, NOW + 5, decision)


def claim(store, worker: str = "w1", now: int = NOW, limit: int = 10) -> list[Claimed]:
    return store.do(Claim(worker, ("f", "g"), limit, now)).runs


def beat(store, worker: str = "w1", lease: int = LEASE) -> dict[str, int]:
    return store.do(Heartbeat(worker, "worker", "host", 1, NOW, lease))


def test_g2_the_same_key_is_the_same_event_and_the_answer_has_the_first_id(store):
    first = accept("k")
    assert store.do(first).event_id == first.event.id
    again = store.do(accept("k"))
    assert (again.event_id, again.duplicate) == (first.event.id, True)
    assert (store.count("events"), store.count("runs"), store.count("requests")) == (1, 1, 2)


def test_g2_the_same_key_twice_in_one_group_is_one_event(store):
    results = store.do(AcceptMany((accept("k"), accept("k"), accept("other"))))
    assert [result.duplicate for result in results] == [False, True, False]
    assert store.count("events") == 2


def test_g2_a_command_repeated_after_its_answer_got_lost_changes_nothing(store):
    command = accept("k")
    assert store.do(command) == store.do(command)
    assert (store.count("events"), store.count("runs"), store.count("requests")) == (1, 1, 1)


def test_g2_duplicates_racing_over_many_journals_make_one_event(store):
    databases = [open_database(store.url) for _ in range(3)]
    journals = [store.journal, *map(ThreadJournal, databases)]
    futures = []

    def post(journal: Journal) -> None:
        futures.extend([journal.submit(accept(f"key {n}")) for n in range(200)])

    threads = [threading.Thread(target=post, args=(journal,)) for journal in journals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results = [future.result(timeout=30) for future in futures]
    for journal, database in zip(journals[1:], databases, strict=True):
        journal.close()
        database.close()
    assert sum(not result.duplicate for result in results) == 200
    assert len({result.event_id for result in results}) == 200
    assert (store.count("events"), store.count("runs"), store.count("queue")) == (200, 200, 200)


def test_g10_a_batch_larger_than_any_socket_takes_at_once_is_kept(store):
    accepts = tuple(accept(f"k{n}", body=b'"%b"' % (b"x" * 4000)) for n in range(5000))
    assert len({one.event_id for one in store.do(AcceptMany(accepts))}) == 5000
    assert store.count("requests") == store.count("queue") == 5000


def test_g3_every_function_has_one_delivery_in_the_transaction_of_the_event(store):
    store.do(accept("k", functions=("f", "g")))
    event = store.reads.events(Query()).rows[0]
    assert [(d["function_id"], d["status"]) for d in store.reads.deliveries(event["id"])] == [("f", "queued"), ("g", "queued")]


def test_g3_an_event_whose_runs_cannot_be_kept_is_not_kept_and_fails_no_neighbour(store):
    bad = accept("bad", functions=("f", "f"))
    good = [accept(f"good {n}") for n in range(20)]
    futures = [store.journal.submit(command) for command in [*good[:10], bad, *good[10:]]]
    outcomes = [future.exception(timeout=20) for future in futures]
    assert [outcome is None for outcome in outcomes] == [True] * 10 + [False] + [True] * 10
    assert store.count("events") == 20


def test_a_claimed_run_carries_its_event_and_exact_body(store):
    body = b'{"big": 12345678901234567890, "z": 1, "a": 1.50, "a": 2, "nul": "\\u0000", "lone": "\\ud800"}'
    store.do(accept("k", body=body))
    beat(store)
    [run] = claim(store)
    assert (run.attempt, run.event_name, run.body) == (1, "a/b", body)


def test_g6_two_workers_racing_for_runs_never_get_the_same_one(store):
    beat(store, "w1"), beat(store, "w2")
    store.do(AcceptMany(tuple(accept(str(n)) for n in range(300))))
    databases = [open_database(store.url) for _ in range(2)]
    journals = [ThreadJournal(database) for database in databases]
    taken: list[str] = []

    def work(journal: Journal, worker: str) -> None:
        while runs := journal.submit(Claim(worker, ("f",), 7, NOW)).result().runs:
            taken.extend(run.run_id for run in runs)

    threads = [threading.Thread(target=work, args=(j, f"w{n}")) for n, j in enumerate(journals, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for journal, database in zip(journals, databases, strict=True):
        journal.close()
        database.close()
    assert len(taken) == len(set(taken)) == 300


def test_g6_a_worker_that_lost_its_lease_cannot_commit_anything(store):
    store.do(accept("k"))
    beat(store, "w1", lease=-1)
    beat(store, "w2")
    [stale] = claim(store, "w1")
    assert store.do(Rescue(NOW)) == 1
    assert store.do(finish(stale, Decision("succeed", output=b"1"))) is False, "freed, nobody holds it"
    [fresh] = claim(store, "w2")
    assert fresh.attempt == 2
    assert store.do(finish(stale, Decision("succeed", output=b"1"))) is False, "held by another"
    assert store.do(finish(stale, Decision("retry", due_at=NOW))) is False
    assert store.do(finish(fresh, Decision("succeed", output=b"2"), "w2")) is True
    assert store.reads.run(stale.run_id)["output"] == b"2"
    outcomes = [(a["outcome"], a["worker_id"]) for a in store.reads.attempts([stale.run_id])]
    assert outcomes == [("lease_lost", "w1"), ("succeeded", "w2")]


def test_g6_a_run_that_kills_its_worker_fails_after_its_attempts(store):
    store.do(accept("k", max_attempts=3))
    beat(store, "w1", lease=-1)
    for _ in range(3):
        [run] = claim(store)
        assert store.do(Rescue(NOW)) == 1
    assert claim(store) == []
    found = store.reads.run(run.run_id)
    assert (found["status"], found["attempts"]) == ("failed", 3)
    assert b"WorkerLost" in found["error"]


def test_a_live_workers_runs_are_not_rescued(store):
    store.do(accept("k"))
    beat(store)
    claim(store)
    assert store.do(Rescue(NOW)) == 0


def test_a_failed_attempt_waits_for_its_retry_and_keeps_its_error(store):
    store.do(accept("k"))
    beat(store)
    [run] = claim(store)
    assert store.do(finish(run, Decision("retry", due_at=NOW + 100, error=Failure("ValueError", "no"))))
    assert claim(store) == []
    assert store.reads.run(run.run_id)["status"] == "waiting"
    assert store.do(Claim("w1", ("f",), 1, NOW)).next_due_at == NOW + 100
    [again] = claim(store, now=NOW + 100)
    assert again.attempt == 2


def test_a_run_handed_back_does_not_count_the_attempt(store):
    store.do(accept("k"))
    beat(store)
    [run] = claim(store)
    assert store.do(finish(run, Decision("hand_back", due_at=NOW)))
    [again] = claim(store)
    assert again.attempt == 1


def test_a_claim_whose_answer_got_lost_is_given_back(store):
    store.do(accept("k"))
    beat(store)
    claim(store)
    [(run_id, fence)] = beat(store).items()
    assert store.do(GiveBack(run_id, fence, "w1", NOW)) is True
    assert store.do(GiveBack(run_id, fence, "w1", NOW)) is False
    assert claim(store)[0].attempt == 1


def test_a_cancelled_run_is_final_and_its_holder_writes_nothing(store):
    store.do(accept("k"))
    beat(store)
    [run] = claim(store)
    assert store.do(CancelRun(run.run_id, NOW)) is True
    assert store.do(CancelRun(run.run_id, NOW)) is False
    assert store.do(finish(run, Decision("succeed", output=b"1"))) is False
    assert store.reads.run(run.run_id)["status"] == "cancelled"


def test_a_retried_run_starts_anew_and_its_old_holder_writes_nothing(store):
    store.do(accept("k"))
    beat(store)
    [run] = claim(store)
    store.do(finish(run, Decision("fail", error=Failure("ValueError", "no"))))
    assert store.do(RetryRun(run.run_id, 5, NOW)) is True
    assert store.do(RetryRun(run.run_id, 5, NOW)) is False
    assert store.do(finish(run, Decision("succeed", output=b"1"))) is False
    [again] = claim(store)
    assert (again.attempt, again.run_id) == (1, run.run_id)
    assert store.do(finish(again, Decision("succeed", output=b"2")))


def test_g2_a_replay_is_a_new_run_and_is_never_swallowed(store):
    first = accept("k")
    store.do(first)
    for n in (1, 2):
        store.do(Replay(first.event.id, f"rpl_{n}", (NewDelivery("f", 5, new_id("run")),), NOW))
    assert store.count("runs") == 3


def test_runs_of_a_function_nobody_offers_wait_until_somebody_does(store):
    store.do(accept("k"))
    beat(store)
    store.do(Publish("local", Manifest(), NOW))
    assert claim(store) == []
    assert store.reads.backlog(NOW)["held"] == 1
    store.do(Publish("local", Manifest(specs=(FunctionSpec(id="f", on=("a/b",)),)), NOW))
    assert len(claim(store)) == 1


def test_pages_go_through_everything_once_in_both_directions(store):
    store.do(AcceptMany(tuple(accept(str(n)) for n in range(25))))
    seen: list[str] = []
    cursor = None
    while True:
        page = store.reads.events(Query(limit=10, cursor=cursor))
        seen += [row["id"] for row in page.rows]
        if page.next_cursor is None:
            break
        cursor = page.next_cursor
    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) == 25
    back = store.reads.events(Query(limit=10, cursor=page.prev_cursor))
    assert [row["id"] for row in back.rows] == seen[10:20]


def test_g10_a_full_journal_refuses_instead_of_growing(store, monkeypatch):
    monkeypatch.setattr(journal_module, "MAX_QUEUED", 0)
    with pytest.raises(Overloaded):
        store.journal.submit(accept("k"))


def test_the_database_refuses_a_final_run_without_a_time(store):
    class Broken(CancelRun):
        @classmethod
        def execute(cls, tx, commands):
            tx.rows("update runs set outcome = 'failed'")
            return [True]

    store.do(accept("k"))
    with pytest.raises(Exception, match="runs_final_has_time"):
        store.do(Broken("x", NOW))


def test_a_schema_that_is_missing_or_newer_stops_the_start_with_what_to_type(database_url):
    with pytest.raises(SchemaMismatch, match="tidegate migrate"):
        schema.check(database_url)
    before, head = schema.migrate(database_url)
    assert before is None
    assert schema.migrate(database_url) == (head, head)
    schema.check(database_url)


def test_the_migrated_schema_is_the_one_the_tables_declare(store):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from sqlalchemy import create_engine

    from gateway.store.tables import METADATA

    engine = create_engine(store.url.replace("postgresql://", "postgresql+psycopg://", 1))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    engine.dispose()


class ClaimAndCount(Claim, frozen=True):
    """A claim that tells how many rows of the queue PostgreSQL has read for it."""

    @classmethod
    def execute(cls, tx, commands):
        claims = super().execute(tx, commands)
        counted = "select seq_tup_read + idx_tup_fetch from pg_stat_xact_user_tables where relname = 'queue'"
        return [(claims[0], tx.rows(counted)[0][0])]


def test_a_claim_reads_no_more_of_a_long_queue_than_it_takes_whatever_the_statistics_say(postgres_url):
    schema.migrate(postgres_url)
    database = open_database(postgres_url)
    journal = ThreadJournal(database)
    journal.submit(Heartbeat("w1", "worker", "host", 1, NOW, LEASE)).result()
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("analyze queue")  # which is empty, as it is on most days
    for n in range(10):
        journal.submit(AcceptMany(tuple(accept(f"{n} {m}") for m in range(500)))).result()
    claims, read = journal.submit(ClaimAndCount("w1", ("f",), 10, NOW)).result()
    assert len(claims.runs) == 10
    assert read <= 40
    journal.close()
    database.close()
