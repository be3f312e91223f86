"""What goes when, that it goes whole, and that nothing else is hurt; on both databases."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from types import SimpleNamespace

import httpx
import msgspec
import psycopg
import pytest

from gateway import settings
from gateway.clock import DAY, SECOND
from gateway.core.decide import Decision
from gateway.core.outcome import Failure
from gateway.engine.retention import DUTY, Retention
from gateway.errors import SettingsError, Unavailable
from gateway.ids import first_id, new_id
from gateway.store import answers, retention
from gateway.store.admin import CancelRun, Replay, RetryRun
from gateway.store.answers import Reserve
from gateway.store.database import open_database
from gateway.store.duties import LeaveDuties, TakeDuty
from gateway.store.inbox import Accept, Accepted, AcceptMany, EventRecord, NewDelivery, Quarantine, Release, RequestRecord
from gateway.store.journal import Command
from gateway.store.retention import Ages, RemoveEvents, cutoffs, old_events
from gateway.store.runs import Claim, Finish, Heartbeat, LogLine
from gateway.store.stats import NoteStats, Tally
from gateway.store.threaded import ThreadJournal
from gateway.telemetry import Telemetry
from tests.processes import API_KEY, site, stripe_delivery, until

NOW = 1_750_000_000_000_000
AGES = Ages(failed=90 * DAY, others=30 * DAY, requests=7 * DAY, keys=90 * DAY)
PARTS = ("events", "requests", "deliveries", "runs", "attempts", "run_logs")


def id_at(prefix: str, at: int) -> str:
    """An id as made at a time."""
    return first_id(prefix, at // 1000)[:-16] + "".join(random.choices("0123456789ABCDEFGHJKMNPQRSTVWXYZ", k=16))


def record(at: int, body: bytes = b"{}") -> RequestRecord:
    return RequestRecord(id_at("req", at), "shop", at, "POST", "/webhooks/shop", b"[]", body, 0)


def arrival(key: str, days_ago: float, functions: Sequence[str] = ("f",)) -> Accept:
    """An event that came in so many days before NOW, with a run for each function."""
    at = NOW - int(days_ago * DAY)
    request = record(at)
    event = EventRecord(id_at("evt", at), "a/b", "shop", key, at, at, b"{}", request.id)
    return Accept(event, tuple(NewDelivery(f, 5, id_at("run", at)) for f in functions), request)


class Statement(Command[None], frozen=True):
    """Any statement."""

    sql: str
    parameters: tuple[object, ...] = ()

    @classmethod
    def execute(cls, tx, commands):
        return [tx.rows(c.sql, c.parameters) for c in commands]


def finish_all(store, moves: dict[str, str], days_ago: float) -> None:
    """End every claimable run so many days before NOW, each function's by its move."""
    at = NOW - int(days_ago * DAY)
    store.do(Heartbeat("w", "worker", "host", 1, NOW, 10 * SECOND))
    for run in store.do(Claim("w", tuple(moves), 1000, NOW)).runs:
        if moves[run.function_id] == "cancel":
            store.do(CancelRun(run.run_id, at))
            continue
        error = Failure("E", "x") if moves[run.function_id] == "fail" else None
        line = LogLine(run.run_id, run.fence, 1, run.attempt, at, "info", "hello")
        decision = Decision(moves[run.function_id], error=error)  # type: ignore[arg-type]
        store.do(Finish(run.run_id, run.fence, run.attempt, "w", at, at, at, decision, (line,)))
    store.do(Statement("delete from endings returning run_id"))  # as whoever tells of them does


def sweeper(store, ages: Ages = AGES, holder: str = "w", now: int = NOW, facts: list | None = None, journal=None) -> Retention:
    heard = [] if facts is None else facts
    telemetry = Telemetry(lambda name, found: heard.append((name, found)))
    journal = journal or store.journal
    return Retention(holder=holder, database=store.database, journal=journal, ages=ages, clock=lambda: now, telemetry=telemetry)


def keys_of(store) -> set[str]:
    return {row["key"] for row in store.database.read("select key from events")}


@pytest.mark.parametrize(
    ("move", "days_ago", "stays"),
    [
        ("succeed", 29, True), ("succeed", 31, False), ("cancel", 29, True), ("cancel", 31, False),
        ("fail", 31, True), ("fail", 89, True), ("fail", 91, False),
    ],
)  # fmt: skip
def test_a_bundle_goes_whole_when_its_runs_are_as_old_as_their_state_asks_for(store, move, days_ago, stays):
    store.do(arrival("k", 100))
    finish_all(store, {"f": move}, days_ago)
    before = {table: store.count(table) for table in PARTS}
    assert sweeper(store).sweep()
    assert {table: store.count(table) for table in PARTS} == (before if stays else dict.fromkeys(PARTS, 0))


def test_an_event_stays_for_the_run_that_stays_longest(store):
    store.do(arrival("k", 100, ("f", "g")))
    finish_all(store, {"f": "succeed", "g": "fail"}, 60)
    sweeper(store).sweep()
    assert store.count("runs") == 2
    sweeper(store, now=NOW + 31 * DAY).sweep()
    assert (store.count("runs"), store.count("events")) == (0, 0)


def test_a_run_that_is_not_final_keeps_its_event_however_old_it_is(store):
    store.do(AcceptMany((arrival("queued", 1000), arrival("half", 1000, ("f", "g")))))
    finish_all(store, {"g": "succeed"}, 999)
    sweeper(store).sweep()
    store.do(Heartbeat("w", "worker", "host", 1, NOW, 10 * SECOND))
    assert len(store.do(Claim("w", ("f",), 10, NOW)).runs) == 2
    sweeper(store).sweep()
    assert (store.count("events"), store.count("runs"), store.count("queue")) == (2, 3, 2)


def test_an_event_without_runs_goes_by_its_own_age(store):
    store.do(AcceptMany((arrival("old", 31, ()), arrival("young", 29, ()))))
    sweeper(store).sweep()
    assert keys_of(store) == {"young"}


def test_zero_keeps_for_ever(store):
    store.do(AcceptMany((arrival("without", 10_000, ()), arrival("both", 10_000, ("f", "g")))))
    store.do(Quarantine(record(NOW - 10_000 * DAY), "no"))
    finish_all(store, {"f": "succeed", "g": "fail"}, 9999)
    sweeper(store, Ages(0, 0, 0, 0)).sweep()
    assert (store.count("events"), store.count("requests"), store.count("idempotency_keys")) == (2, 3, 2)
    sweeper(store, Ages(failed=0, others=DAY, requests=0, keys=0)).sweep()
    assert keys_of(store) == {"both"}


def test_failures_may_go_earlier_than_successes(store):
    store.do(AcceptMany((arrival("failed", 20), arrival("succeeded", 20, ("g",)), arrival("both", 20, ("f", "g")))))
    finish_all(store, {"f": "fail", "g": "succeed"}, 10)
    sweeper(store, Ages(failed=5 * DAY, others=0, requests=0, keys=0)).sweep()
    assert keys_of(store) == {"succeeded", "both"}


def test_refused_requests_go_by_their_own_age_and_accepted_ones_with_their_event(store):
    store.do(arrival("k", 10))
    for days_ago in (8, 6):
        store.do(Quarantine(record(NOW - days_ago * DAY), "no"))
        store.do(arrival("k", days_ago))
    assert store.count("requests") == 5
    facts: list = []
    sweeper(store, facts=facts).sweep()
    rows = store.database.read("select status, received_at from requests order by status")
    assert [(row["status"], (NOW - row["received_at"]) // DAY) for row in rows] == [
        ("accepted", 10), ("duplicate", 6), ("quarantined", 6),
    ]  # fmt: skip
    [(name, found)] = facts
    assert (name, found["removed"]["quarantined"], found["removed"]["duplicate"]) == ("retention.swept", 1, 1)


def test_a_request_that_was_released_goes_with_its_event(store):
    request = record(NOW - 20 * DAY)
    store.do(Quarantine(request, "no"))
    event = EventRecord(id_at("evt", NOW - 20 * DAY), "a/b", "shop", "k", NOW, NOW, b"{}", request.id)
    assert store.do(Release(event, (), request.id, 0, NOW)) == Accepted(event.id, duplicate=False)
    sweeper(store).sweep()
    assert store.count("requests") == 1
    sweeper(store, now=NOW + 11 * DAY).sweep()
    assert (store.count("requests"), store.count("events")) == (0, 0)


def test_g2_a_key_outlives_its_event_and_a_redelivery_has_the_first_id(store):
    first = arrival("k", 60)
    store.do(first)
    finish_all(store, {"f": "succeed"}, 59)
    sweeper(store).sweep()
    assert store.count("events") == 0
    assert store.do(arrival("k", 0)) == Accepted(first.event.id, duplicate=True)
    assert (store.count("events"), store.count("runs")) == (0, 0)
    assert store.reads.request(store.database.read("select id from requests")[0]["id"])["event_id"] == first.event.id
    sweeper(store, now=NOW + 31 * DAY).sweep()
    assert store.count("idempotency_keys") == 0
    assert not store.do(arrival("k", 0)).duplicate


def test_g2_a_key_stays_as_long_as_its_event_even_if_its_own_age_is_over(store):
    store.do(arrival("k", 200))
    sweeper(store).sweep()
    assert (store.count("events"), store.count("idempotency_keys")) == (1, 1)


def test_a_key_that_is_known_by_its_hash_alone_goes_as_late_as_any(store):
    for n, days in enumerate((89, 91)):
        sql = "insert into idempotency_hashes (key_hash, event_id, created_at) values (?, ?, ?) returning 1"
        store.do(Statement(sql, (bytes([n]) * 16, "evt_gone", NOW - days * DAY)))
    sweeper(store).sweep()
    assert [bytes(row["key_hash"]) for row in store.database.read("select key_hash from idempotency_hashes")] == [b"\0" * 16]


def test_keys_are_found_over_many_pages_from_wherever_the_look_begins(store, monkeypatch):
    monkeypatch.setattr(retention, "PAGE", 7)
    store.do(AcceptMany(tuple(arrival(str(n), 100, ()) for n in range(60))))
    store.do(AcceptMany(tuple(arrival(f"young {n}", 1, ()) for n in range(20))))
    sweeper(store).sweep()
    assert (store.count("events"), store.count("idempotency_keys")) == (20, 20)


def test_answers_and_minutes_go_and_totals_stay(store):
    for n, at in enumerate((NOW - answers.KEPT - 1, NOW - answers.KEPT + 1)):
        store.do(Reserve(bytes([n]), b"", at))
    tally = Tally()
    tally.add(1)
    for days in (31, 29):
        store.do(NoteStats(NOW - days * DAY, {("webhook", "shop", "accepted"): tally}))
    sweeper(store).sweep()
    assert store.count("answers") == 1
    counts = store.database.read("select minute, count from stats order by minute")
    assert [(row["minute"], row["count"]) for row in counts] == [(0, 2), ((NOW - 29 * DAY) // 60_000_000, 1)]


def test_an_event_stays_until_its_runs_endings_have_been_told(store):
    store.do(arrival("k", 100))
    finish_all(store, {"f": "succeed"}, 60)
    store.do(Statement("insert into endings (run_id, ended_at) select id, 0 from runs returning run_id"))
    sweeper(store).sweep()
    assert store.count("events") == 1
    store.do(Statement("delete from endings returning run_id"))
    sweeper(store).sweep()
    assert store.count("events") == 0


def test_what_runs_have_remembered_goes_with_them(store):
    store.do(arrival("k", 100))
    finish_all(store, {"f": "succeed"}, 60)
    [run] = store.database.read("select id, event_id from runs")
    for columns, values in (
        (
            "steps (run_id, key, kind, status, position, attempts, started_at, finished_at)",
            (run["id"], "s", "run", "succeeded", 0, 1, 0, 1),
        ),
        ("step_attempts (run_id, key, fence, number, started_at, finished_at, error)", (run["id"], "s", 1, 1, 0, 1, b"{}")),
        ("waits (run_id, key, kind, match_hash, since)", (run["id"], "w", "event", b"x", 0)),
        ("progress (run_id, done, message, at)", (run["id"], 1, "", 0)),
        ("arrivals (match_hash, event_id, seen)", (b"x", run["event_id"], 1)),
        ("run_keys (key_hash, run_id, until)", (b"x", run["id"], NOW - 1)),
        ("run_keys (key_hash, run_id, until)", (b"y", "run_another", NOW + 1)),
    ):
        store.do(Statement(f"insert into {columns} values ({', '.join('?' * len(values))})", values))
    sweeper(store).sweep()
    tables = (*retention.PARTS_OF_RUNS, "runs", "events", "arrivals")
    assert {table: store.count(table) for table in tables} == dict.fromkeys(tables, 0)
    assert store.count("run_keys") == 1


def test_a_replay_or_retry_of_an_event_that_is_gone_changes_nothing(store):
    gone = arrival("k", 200)
    store.do(gone)
    finish_all(store, {"f": "fail"}, 199)
    sweeper(store).sweep()
    assert store.do(Replay(gone.event.id, new_id("rpl"), (NewDelivery("f", 5, new_id("run")),), NOW)) is False
    assert store.do(RetryRun(gone.deliveries[0].run_id or "", 5, NOW)) is False
    assert (store.count("queue"), store.count("runs"), store.count("deliveries")) == (0, 0, 0)


def test_replays_and_retries_racing_a_sweep_leave_whole_bundles(store):
    gone = [arrival(str(n), 200) for n in range(120)]
    store.do(AcceptMany(tuple(gone)))
    finish_all(store, {"f": "fail"}, 199)
    database = open_database(store.url)
    journal = ThreadJournal(database)
    futures = []

    def interfere() -> None:
        for n, accept in enumerate(gone):
            if n % 2:
                futures.append(journal.submit(RetryRun(accept.deliveries[0].run_id or "", 5, NOW)))
            else:
                new = NewDelivery("f", 5, id_at("run", NOW))
                futures.append(journal.submit(Replay(accept.event.id, new_id("rpl"), (new,), NOW)))

    other = threading.Thread(target=interfere)
    other.start()
    sweeper(store).sweep()
    other.join()
    won = [future.result(timeout=30) for future in futures]
    journal.close()
    database.close()
    assert store.count("events") == store.count("queue") == sum(won)
    assert_whole(store)


def assert_whole(store) -> None:
    """Nothing of a bundle is without the rest of it."""
    for orphans in (
        "select 1 from runs where event_id not in (select id from events)",
        "select 1 from deliveries where event_id not in (select id from events)",
        "select 1 from deliveries where run_id is not null and run_id not in (select id from runs)",
        "select 1 from runs where id not in (select run_id from deliveries where run_id is not null)",
        "select 1 from queue where run_id not in (select id from runs)",
        "select 1 from runs where outcome is null and id not in (select run_id from queue)",
        "select 1 from attempts where run_id not in (select id from runs)",
        "select 1 from run_logs where run_id not in (select id from runs)",
        "select 1 from events where request_id not in (select id from requests)",
        "select 1 from requests where status = 'accepted' and event_id not in (select id from events)",
    ):
        assert store.database.read(orphans) == [], orphans


def test_one_process_at_a_time_has_the_duty(store):
    take = lambda holder, now, lease=10 * SECOND: store.do(TakeDuty("d", holder, now, lease))  # noqa: E731
    assert take("w1", NOW)
    assert not take("w2", NOW)
    assert take("w1", NOW)
    store.do(LeaveDuties("w1"))
    assert take("w2", NOW)
    assert not take("w1", NOW)


def test_two_workers_do_not_sweep_at_once(store):
    store.do(arrival("k", 31, ()))
    store.do(TakeDuty(DUTY, "other", NOW, 60 * SECOND))
    assert not sweeper(store).sweep()
    assert store.count("events") == 1
    store.do(LeaveDuties("other"))
    assert sweeper(store).sweep()
    assert store.count("events") == 0
    assert not sweeper(store, holder="other").sweep()  # it was done a moment ago


def test_a_sweep_under_load_loses_nothing(store):
    store.do(AcceptMany(tuple(arrival(f"old {n}", 40) for n in range(400))))
    finish_all(store, {"f": "succeed"}, 35)
    database = open_database(store.url)
    journal = ThreadJournal(database)
    sent = [arrival(f"new {n}", 0, ("f", "g")) for n in range(400)]
    futures = []
    thread = threading.Thread(target=lambda: futures.extend([journal.submit(accept) for accept in sent]))
    thread.start()
    sweeper(store).sweep()
    thread.join()
    results = [future.result(timeout=30) for future in futures]
    journal.close()
    database.close()
    assert {result.event_id for result in results} == {row["id"] for row in store.database.read("select id from events")}
    assert (store.count("events"), store.count("runs"), store.count("queue")) == (400, 800, 800)
    assert_whole(store)


def test_a_sweep_while_the_store_is_away_is_tried_again(store):
    store.do(arrival("k", 40, ()))
    away = iter([True, False])

    def submit(command):
        if next(away, False):
            raise Unavailable("away")
        return store.journal.submit(command)

    swept = threading.Event()
    journal = SimpleNamespace(submit=submit)
    made = Retention(
        holder="w", database=store.database, journal=journal, ages=Ages(failed=0, others=SECOND, requests=0, keys=0),  # type: ignore[arg-type]
        clock=lambda: NOW, telemetry=Telemetry(lambda name, facts: swept.set()),
    )  # fmt: skip
    made.start()
    assert swept.wait(20)
    made.stop()
    assert store.count("events") == 0


def test_a_sweep_ends_when_it_is_told_to_and_gives_the_duty_up(store):
    store.do(AcceptMany(tuple(arrival(str(n), 40, ()) for n in range(100))))
    made = sweeper(store)
    made.start()
    made.stop()
    assert not made.sweep()
    assert sweeper(store, holder="other").sweep()
    assert store.count("events") == 0


def test_g4_killed_in_the_middle_of_a_sweep_it_leaves_whole_bundles_and_goes_on_later(store, tmp_path):
    first, *others = [arrival(f"evt_{n}", 40 + n / 1000) for n in range(1500)]
    body, headers = stripe_delivery("evt_first")
    first = msgspec.structs.replace(first, event=msgspec.structs.replace(first.event, source="stripe", key="evt_first"))
    store.do(AcceptMany((first, *others)))
    for _ in range(2):
        finish_all(store, {"f": "succeed"}, 35)
    ages = {"TIDEGATE_RETENTION_DAYS": "0.001", "TIDEGATE_IDEMPOTENCY_DAYS": "0"}
    with site(tmp_path, database_url=store.url, settings=ages | {"TIDEGATE_PROCESS_ID": "wrk_1"}) as made:
        worker = made.start("worker")
        until(lambda: store.count("events") < 1500)
        worker.kill()
        worker.wait()
        assert store.count("events") > 0, "it was over before it could be killed"
        assert_whole(store)
        made.settings |= {"TIDEGATE_PROCESS_ID": "wrk_2", "TIDEGATE_REPLACES": "wrk_1"}
        made.start("worker")
        made.settings = ages
        made.start("gateway")
        until(lambda: store.count("events") == 0, 60)
        assert_whole(store)
        made.wait_ready()
        again = httpx.post(f"{made.url()}/webhooks/stripe", content=body, headers=headers)
        assert (again.status_code, again.json()) == (200, {"id": first.event.id, "duplicate": True})
        as_admin = {"Authorization": f"Bearer {API_KEY}"}
        shown = f"{made.url()}/api/v1/events/{first.event.id}"
        for path in ("", "/deliveries", "/payload"):
            assert httpx.get(shown + path, headers=as_admin).status_code == 404
        assert httpx.post(f"{shown}/replay", headers=as_admin).status_code == 404
        assert httpx.post(f"{made.url()}/api/v1/runs/{first.deliveries[0].run_id}/retry", headers=as_admin).status_code == 404
        [request] = made.get("/requests")["data"]
        assert (request["status"], request["event_id"]) == ("duplicate", first.event.id)
        assert made.get(f"/requests/{request['id']}")["event_id"] == first.event.id
        assert made.get("/events")["data"] == made.get("/runs")["data"] == []


def explained(store, sql: str, parameters: Sequence[object]) -> str:
    """The plan of a statement, in words."""
    if store.database.dialect == "sqlite":
        return "\n".join(row["detail"] for row in store.database.read(f"explain query plan {sql}", parameters))
    return "\n".join(row["QUERY PLAN"] for row in store.database.read(f"explain {sql}", parameters))


def grow(store) -> None:
    """So many rows that PostgreSQL would rather take an index than read them all; SQLite does not count them."""
    if store.database.dialect == "sqlite":
        return
    with psycopg.connect(store.url, autocommit=True) as connection:
        for table, columns, values in (
            ("events", "id, name, source, key, occurred_at, received_at, data_path, attributes",
             "'evt_' || n, 'a/b', 'shop', n, 0, 0, '', ''"),
            ("deliveries", "event_id, function_id, replay_id, run_id", "'evt_' || n, 'f', '', 'run_' || n"),
            ("runs", "id, event_id, function_id, created_at, outcome, finished_at, attempts",
             "'run_' || n, 'evt_' || n, 'f', 0, case n % 10 when 0 then 'failed' else 'succeeded' end, 1, 1"),
            ("requests", "id, source, received_at, status, method, url, headers, body",
             "'req_' || n, 'shop', 0, case n % 10 when 0 then 'duplicate' when 1 then 'quarantined' else 'accepted' end, '', '', '', ''"),
            ("idempotency_keys", "key, event_id, created_at", "decode(md5(n::text), 'hex'), 'evt_' || n, 0"),
            ("idempotency_hashes", "key_hash, event_id, created_at", "decode(md5(n::text), 'hex'), 'evt_' || n, 0"),
            ("stats", "minute, kind, subject, outcome, count, total_us, b0, b1, b2, b3, b4, b5, b6, b7",
             "n, '', '', '', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0"),
            ("answers", "key_hash, fingerprint, created_at", "decode(md5(n::text), 'hex'), '', n"),
            ("run_keys", "key_hash, run_id, until", "decode(md5(n::text), 'hex'), 'run_' || n, 1900000000000000 + n"),
        ):  # fmt: skip
            connection.execute(f"insert into {table} ({columns}) select {values} from generate_series(1, 50000) n".encode())
        connection.execute("vacuum analyze")


def test_nothing_is_found_by_looking_through_a_table(store):
    grow(store)
    limits = cutoffs(AGES, NOW)
    ids = ["evt_1", "evt_10", "evt_100"]
    plans = [
        explained(store, retention._EVENTS, ["", ids[-1], 500]),
        explained(store, retention._FAILED, ["", first_id("run", limits.failed // 1000), 50]),
        explained(store, f"{retention._KEPT} ({', '.join('?' * len(ids))})", [0, 0, *ids]),
        *(explained(store, sql, [b"\x80", retention.LAST_KEY, 50]) for sql in retention._KEYS.values()),
        *(explained(store, retention._OLDEST[what], [retention._first_kept(what, limits), 50]) for what in retention._OLDEST),
    ]
    for plan in plans:
        for line in plan.splitlines():
            assert not line.strip().startswith("SCAN") or "INDEX" in line, plan
            assert "Seq Scan" not in line, plan
    assert "runs_unhappy" in plans[1]
    assert all("requests_refused" in plan for plan in plans[5:7])
    assert "answers_by_age" in plans[7]
    assert "run_keys_by_age" in plans[8]


def test_what_is_looked_through_is_paged_and_every_page_goes_on_behind_the_last(store, monkeypatch):
    monkeypatch.setattr(retention, "PAGE", 10)
    store.do(AcceptMany(tuple(arrival(str(n), 40 - n / 100, ()) for n in range(95))))
    store.do(arrival("kept", 39.5))
    pages = list(old_events(store.database, cutoffs(AGES, NOW)))
    assert [len(page) for page in pages].count(10) == 8
    assert len({id_ for page in pages for id_ in page}) == 95
    found = store.do(RemoveEvents(tuple(id_ for page in pages for id_ in page), cutoffs(AGES, NOW)))
    assert found.count == 95
    assert keys_of(store) == {"kept"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"TIDEGATE_IDEMPOTENCY_DAYS": "7"}, "TIDEGATE_IDEMPOTENCY_DAYS"),
        ({"TIDEGATE_RETENTION_DAYS": "-1"}, "TIDEGATE_RETENTION_DAYS"),
        ({"TIDEGATE_RETENTION_FAILED_DAYS": "nan"}, "TIDEGATE_RETENTION_FAILED_DAYS"),
        ({"TIDEGATE_RETENTION_REQUESTS_DAYS": "0.000001"}, "TIDEGATE_RETENTION_REQUESTS_DAYS"),
        ({"TIDEGATE_RETENTION_DAYS": "soon"}, "TIDEGATE_RETENTION_DAYS"),
    ],
)
def test_a_bad_retention_stops_the_start_and_names_the_setting(given, words, tmp_path):
    with pytest.raises(SettingsError, match=words):
        settings.load(given, tmp_path)


def test_retention_takes_fractions_and_zero(tmp_path):
    found = settings.load({"TIDEGATE_RETENTION_DAYS": "0", "TIDEGATE_RETENTION_FAILED_DAYS": "0.5"}, tmp_path)
    assert (found.retention_days, found.retention_failed_days) == (0, 0.5)
