"""What may go, and its removal. An event goes with all that belongs to it, once every run of it is final and old enough.

What is old is found by reads, page by page in the order of a key, which warm what the removal needs; a removal is a small
command that looks again in its own transaction. Ids carry their time, so that no index is kept for this.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from gateway.clock import DAY, Micros
from gateway.ids import first_id
from gateway.store import answers
from gateway.store.database import Database, Transaction
from gateway.store.journal import Command
from gateway.store.reads import Record
from gateway.store.stats import MINUTE_US

PAGE = 500
LAST_KEY = b"\xff" * 17
STATS_KEPT: Micros = 30 * DAY

# What goes with a run, by its id. A new table of what belongs to runs is added here, and nowhere else.
PARTS_OF_RUNS = ("run_logs", "attempts", "steps", "step_attempts", "waits", "progress")

Keys = Literal["idempotency_keys", "idempotency_hashes"]
_KEY_COLUMNS: Mapping[Keys, str] = {"idempotency_keys": "key", "idempotency_hashes": "key_hash"}


class Ages(msgspec.Struct, frozen=True):
    """How long what is kept: runs that failed, other final runs and events without any, refused requests, keys. 0 is for ever."""

    failed: Micros
    others: Micros
    requests: Micros
    keys: Micros


class Cutoffs(msgspec.Struct, frozen=True):
    """What ended before these times may go; nothing ended before 0."""

    failed: Micros
    others: Micros
    requests: Micros
    keys: Micros
    now: Micros


def cutoffs(ages: Ages, now: Micros) -> Cutoffs:
    """The cutoffs as of `now`."""
    failed, others, requests, keys = [now - age if age else 0 for age in msgspec.structs.astuple(ages)]
    return Cutoffs(failed, others, requests, keys, now)


# Finding, by reads.

_EVENTS = "select id from events where id > ? and id < ? order by id limit ?"
# The conditions on the outcome twice: so stated, both databases know that the partial index has what is asked for.
_FAILED = (
    "select id, event_id from runs where outcome in ('failed', 'cancelled') and outcome = 'failed'"
    " and id > ? and id < ? order by id limit ?"
)
_TOO_YOUNG = "(r.outcome is null or r.finished_at >= case r.outcome when 'failed' then ? else ? end)"
_KEPT = f"select d.event_id from deliveries d join runs r on r.id = d.run_id where {_TOO_YOUNG} and d.event_id in"
_KEYS: Mapping[Keys, str] = {
    table: f"select k.{column} as id, k.created_at, (select id from events where events.id = k.event_id) as event from {table} k"
    f" where k.{column} > ? and k.{column} <= ? order by k.{column} limit ?"
    for table, column in _KEY_COLUMNS.items()
}


def old_events(database: Database, limits: Cutoffs) -> Iterator[list[str]]:
    """Ids of events that may go, a page at a time; some pages are empty.

    Events are looked through in the order they came in, up to where others are too young. Where failed runs go earlier than
    others, they lead to their events instead.
    """
    for page in _pages(database, _EVENTS, "", first_id("evt", limits.others // 1000)):
        yield _old(database, limits, [row["id"] for row in page])
    if limits.failed > limits.others:
        for page in _pages(database, _FAILED, "", first_id("run", limits.failed // 1000)):
            yield _old(database, limits, list({row["event_id"]: None for row in page}))


def _old(database: Database, limits: Cutoffs, event_ids: list[str]) -> list[str]:
    sql = f"{_KEPT} ({', '.join('?' * len(event_ids))})"
    kept = {row["event_id"] for row in database.read(sql, [limits.failed, limits.others, *event_ids])}
    return [id_ for id_ in event_ids if id_ not in kept]


def old_keys(database: Database, limits: Cutoffs, table: Keys) -> Iterator[list[tuple[bytes, Micros]]]:
    """Idempotency keys that may go, a page at a time, whose events have gone before.

    The look through all of them begins at any one, so that one that is often interrupted still gets around: where keys are in no
    order of time, they are hashes or mostly hexadecimal.
    """
    if not limits.keys:
        return
    start = secrets.token_hex(8).encode() if table == "idempotency_keys" else secrets.token_bytes(16)
    for after, up_to in ((start, LAST_KEY), (b"", start)):
        for page in _pages(database, _KEYS[table], after, up_to):
            yield [(bytes(row["id"]), row["created_at"]) for row in page if row["created_at"] < limits.keys and not row["event"]]


def _pages(database: Database, sql: str, after: Any, up_to: Any) -> Iterator[Sequence[Record]]:
    """The rows of a statement in the order of its column `id`, from behind `after`."""
    while rows := database.read(sql, [after, up_to, PAGE]):
        yield rows
        after = rows[-1]["id"]


# Removing, by the journal.


class Removed(msgspec.Struct, frozen=True):
    """How many were removed, and how long that took, apart from waiting for a turn and for the disk."""

    count: int
    seconds: float


def _timed(remove: Callable[[Transaction, Any], int], tx: Transaction, commands: Sequence[Any]) -> list[Removed]:
    done: list[Removed] = []
    for command in commands:
        started = time.perf_counter()
        count = remove(tx, command)
        done.append(Removed(count, time.perf_counter() - started))
    return done


class RemoveEvents(Command[Removed], frozen=True):
    """Remove those of some events that may go, each with its request, deliveries and runs."""

    event_ids: tuple[str, ...]
    limits: Cutoffs

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[RemoveEvents]) -> list[Removed]:
        return _timed(_remove_events, tx, commands)


def _remove_events(tx: Transaction, c: RemoveEvents) -> int:
    condition, ids = tx.any_of("id", c.event_ids)
    # Locked, then looked at: a replay locks its event, a retry its run, so that neither gets into the middle.
    requests = dict(tx.rows(f"select id, request_id from events where {condition} order by id{tx.skip_locked()}", ids))
    if not requests:
        return 0
    condition, ids = tx.any_of("event_id", list(requests))
    # Before the runs are read: whoever tells of an ending takes its row and may make another run, both at once.
    untold = tx.rows(f"select d.event_id from deliveries d join endings n on n.run_id = d.run_id where d.{condition}", ids)
    runs: dict[str, str] = dict(tx.rows(f"select run_id, event_id from deliveries where {condition} and run_id is not null", ids))
    kept = {row[0] for row in untold} | set(runs.values()) - _events_of_old_runs(tx, runs, c.limits)
    events = [id_ for id_ in requests if id_ not in kept]
    mine = [(run_id,) for run_id, event_id in runs.items() if event_id not in kept]
    for table in PARTS_OF_RUNS:
        tx.delete(table, ("run_id",), mine)
    tx.delete("runs", ("id",), mine)
    tx.delete("deliveries", ("event_id",), [(id_,) for id_ in events])
    tx.delete("arrivals", ("event_id",), [(id_,) for id_ in events])
    tx.delete("requests", ("id",), [(requests[id_],) for id_ in events if requests[id_] is not None])
    return len(tx.delete("events", ("id",), [(id_,) for id_ in events]))


def _events_of_old_runs(tx: Transaction, runs: Mapping[str, str], limits: Cutoffs) -> set[str]:
    """The events all of whose runs are final and old; one whose run is being changed is not among them."""
    if not runs:
        return set()
    condition, ids = tx.any_of("r.id", list(runs))
    sql = f"select r.id from runs r where {condition} and not {_TOO_YOUNG} order by r.id{tx.skip_locked()}"
    old = {row[0] for row in tx.rows(sql, [*ids, limits.failed, limits.others])}
    return set(runs.values()) - {event_id for run_id, event_id in runs.items() if run_id not in old}


class RemoveKeys(Command[Removed], frozen=True):
    """Forget idempotency keys, by what is kept of them and when they were made."""

    table: Keys
    keys: tuple[tuple[bytes, Micros], ...]

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[RemoveKeys]) -> list[Removed]:
        return _timed(_remove_keys, tx, commands)


def _remove_keys(tx: Transaction, c: RemoveKeys) -> int:
    return len(tx.delete(c.table, (_KEY_COLUMNS[c.table], "created_at"), c.keys))


Oldest = Literal["quarantined", "duplicate", "answers", "run_keys", "stats"]


def _refused(status: Oldest) -> str:
    mine = f"status <> 'accepted' and status = '{status}'"
    return f"delete from requests where id in (select id from requests where {mine} and id < ? order by id limit ?) and {mine} returning id"


_OLDEST: Mapping[Oldest, str] = {
    "quarantined": _refused("quarantined"),
    "duplicate": _refused("duplicate"),
    "answers": "delete from answers where key_hash in"
    " (select key_hash from answers where created_at < ? order by created_at limit ?) returning key_hash",
    "run_keys": "delete from run_keys where until < ? and key_hash in (select key_hash from run_keys order by until limit ?)"
    " returning key_hash",
    "stats": "delete from stats where (minute, kind, subject, outcome) in (select minute, kind, subject, outcome from stats"
    " where minute > 0 and minute < ? order by minute limit ?) returning minute",
}


class RemoveOldest(Command[Removed], frozen=True):
    """Remove up to `limit` of what stands alone and is old, the oldest first."""

    what: Oldest
    limits: Cutoffs
    limit: int

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[RemoveOldest]) -> list[Removed]:
        return _timed(_remove_oldest, tx, commands)


def _remove_oldest(tx: Transaction, c: RemoveOldest) -> int:
    return len(tx.rows(_OLDEST[c.what], [_first_kept(c.what, c.limits), c.limit]))


def _first_kept(what: Oldest, limits: Cutoffs) -> str | int:
    if what == "answers":
        return limits.now - answers.KEPT
    if what == "run_keys":
        return limits.now
    if what == "stats":
        return (limits.now - STATS_KEPT) // MINUTE_US
    return first_id("req", limits.requests // 1000)
