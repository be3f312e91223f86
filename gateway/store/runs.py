"""The life of live runs: claim, finish, heartbeat, rescue. Every write that ends an attempt carries its fence (G6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import msgspec

from gateway import codec
from gateway.clock import SECOND, Micros
from gateway.core.decide import Decision
from gateway.core.outcome import Failure
from gateway.core.steps import Step
from gateway.store.database import Database, Transaction
from gateway.store.journal import Command
from gateway.store.offers import withdraw
from gateway.store.steps import steps_of
from gateway.store.waits import lock_queue

FORGET = 3600 * SECOND
OUTCOMES: Mapping[str, str] = {"succeed": "succeeded", "fail": "failed", "cancel": "cancelled"}

ATTEMPT_COLUMNS = ("run_id", "fence", "number", "outcome", "worker_id", "started_at", "finished_at", "error")
WORKER_LOST = Failure(
    "WorkerLost",
    "the worker that ran this attempt stopped without a word: it was killed, ran out of memory, or lost the database",
)


class Claimed(msgspec.Struct, frozen=True):
    """A run that is ours under `fence`, with its event; `body` holds the event's data at `data_path`, or is the data."""

    run_id: str
    function_id: str
    attempt: int
    max_attempts: int
    fence: int
    first_started_at: Micros
    due_at: Micros
    event_id: str
    event_name: str
    source: str
    occurred_at: Micros
    received_at: Micros
    attributes: bytes
    traceparent: str | None
    data_path: str
    body: bytes
    created_at: Micros
    parent_id: str | None = None
    parent_key: str | None = None
    parent_error: bytes | None = None
    steps: tuple[Step, ...] = ()


class Claims(msgspec.Struct, frozen=True):
    """What a claim got. `next_due_at`: when the next run that is not due yet will be, where it got fewer than it asked for."""

    runs: list[Claimed]
    next_due_at: Micros | None = None


class Claim(Command[Claims], frozen=True):
    """Take up to `limit` due runs of these functions: raise the fence, count the attempt, return them with their events."""

    worker_id: str
    function_ids: tuple[str, ...]
    limit: int
    now: Micros

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[Claim]) -> list[Claims]:
        return [_claims(tx, command) for command in commands]


def _claims(tx: Transaction, claim: Claim) -> Claims:
    runs = _claim(tx, claim)
    if len(runs) == claim.limit:
        return Claims(runs)
    return Claims(runs, tx.rows("select min(due_at) from queue where held = 0 and due_at > ?", [claim.now])[0][0])


def _claim(tx: Transaction, claim: Claim) -> list[Claimed]:
    condition, ids = tx.any_of("function_id", claim.function_ids)
    rows = tx.rows(
        f"with due as materialized (select run_id from queue where held = 0 and due_at <= ? and worker_id is null and {condition}"
        " and function_id not in (select function_id from pauses) and exists (select 1 from processes where id = ?)"
        f" order by due_at, run_id limit ?{tx.skip_locked()})"
        " update queue set worker_id = ?, claimed_at = ?, fence = fence + 1, attempt = attempt + 1, reason = null,"
        " first_started_at = coalesce(first_started_at, ?) from due where queue.run_id = due.run_id"
        " returning queue.run_id, function_id, attempt, max_attempts, fence, first_started_at, due_at",
        [claim.now, *ids, claim.worker_id, claim.limit, claim.worker_id, claim.now, claim.now],
    )
    if not rows:
        return []
    last = max(row[6] for row in rows)
    tx.rows("update processes set claimed_to = ? where id = ? and claimed_to < ?", [last, claim.worker_id, last])
    condition, ids = tx.any_of("r.id", [row[0] for row in rows])
    events = {
        row[0]: row[1:]
        for row in tx.rows(
            "select r.id, e.id, e.name, e.source, e.occurred_at, e.received_at, e.attributes, e.traceparent, e.data_path,"
            " coalesce(e.data, q.body), r.created_at, r.parent_id, r.parent_key, p.error from runs r join events e on e.id = r.event_id"
            " left join requests q on q.id = e.request_id left join runs p on p.id = r.parent_id and r.parent_key is null"
            f" where {condition}",
            ids,
        )
    }
    steps = steps_of(tx, [row[0] for row in rows if row[5] != claim.now])
    return [Claimed(*row, *events[row[0]], steps=steps.get(row[0], ())) for row in sorted(rows)]


class LogLine(msgspec.Struct, frozen=True):
    """One line that an attempt has said, in `step` or outside of any, as it is kept."""

    run_id: str
    fence: int
    n: int
    attempt: int
    at: Micros
    level: str
    message: str
    step: str | None = None


LOG_COLUMNS = LogLine.__struct_fields__


class WriteLogs(Command[None], frozen=True):
    """Keep lines of attempts that go on."""

    lines: tuple[LogLine, ...]

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[WriteLogs]) -> list[None]:
        lines = [line for command in commands for line in command.lines]
        tx.insert_new("run_logs", LOG_COLUMNS, [msgspec.structs.astuple(line) for line in lines])
        return [None] * len(commands)


class WriteProgress(Command[None], frozen=True):
    """Keep how far a run says it is."""

    run_id: str
    done: int
    total: int | None
    message: str
    at: Micros

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[WriteProgress]) -> list[None]:
        for c in commands:
            tx.rows(
                "insert into progress (run_id, done, total, message, at) values (?, ?, ?, ?, ?) on conflict (run_id) do update"
                " set done = excluded.done, total = excluded.total, message = excluded.message, at = excluded.at returning run_id",
                [c.run_id, c.done, c.total, c.message, c.at],
            )
        return [None] * len(commands)


class Finish(Command[bool], frozen=True):
    """End an attempt with a decision. The result is False when the run has another holder by now: nothing was written.

    `tell`: somebody waits for the run's end, however it ends; of a run that did not succeed it is always told.
    `waits`: it may leave waits behind. `pending`: the steps it is parked for; one that has ended makes it due at once.
    """

    run_id: str
    fence: int
    number: int
    worker_id: str
    started_at: Micros
    first_started_at: Micros
    finished_at: Micros
    decision: Decision
    logs: tuple[LogLine, ...] = ()
    tell: bool = False
    waits: bool = False
    pending: tuple[str, ...] = ()

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[Finish]) -> list[bool]:
        final = [c for c in commands if c.decision.move in OUTCOMES]
        parked = [c for c in commands if c.decision.move not in OUTCOMES]
        came = _came(tx, [c for c in parked if c.pending])
        mine = tx.delete("queue", ("run_id", "fence"), [(c.run_id, c.fence) for c in final])
        mine |= tx.update(
            "queue",
            ("run_id", "fence"),
            ("due_at", "attempt", "reason", "worker_id", "claimed_at"),
            [_parked(c, c.run_id in came) for c in parked],
        )
        tx.write(
            "runs",
            ("id",),
            ("outcome", "attempts", "started_at", "finished_at", "output", "error"),
            [_ended(c) for c in final if c.run_id in mine],
        )
        ended(tx, [(c.run_id, c.finished_at) for c in final if c.run_id in mine and (c.tell or c.decision.move != "succeed")])
        drop_waits(tx, [c.run_id for c in final if c.run_id in mine and c.waits])
        tx.insert("attempts", ATTEMPT_COLUMNS, [_attempt(c) for c in commands if c.run_id in mine and c.decision.move != "park"])
        lines = [msgspec.structs.astuple(line) for c in commands for line in c.logs]
        if lines:
            tx.insert_new("run_logs", LOG_COLUMNS, lines)
        return [c.run_id in mine for c in commands]


def _parked(c: Finish, came: bool) -> tuple[Any, ...]:
    decision = c.decision
    attempt = c.number if decision.move == "retry" else c.number - 1
    due_at, reason = (c.finished_at, None) if came else (decision.due_at, "retry" if decision.move == "retry" else decision.reason)
    return (c.run_id, c.fence, due_at, attempt, reason, None, None)


def _came(tx: Transaction, waiting: Sequence[Finish]) -> set[str]:
    """The runs that must not be parked: a wait has ended since their attempt looked, while the run was held."""
    if not waiting:
        return set()
    run_ids = {c.run_id for c in waiting}
    lock_queue(tx, run_ids)
    condition, ids = tx.any_of("run_id", sorted(run_ids))
    left = {(row[0], row[1]) for row in tx.rows(f"select run_id, key from waits where {condition}", ids)}
    return {c.run_id for c in waiting if any((c.run_id, key) not in left for key in c.pending)}


def ended(tx: Transaction, endings: Sequence[tuple[str, Micros]]) -> None:
    """Keep that the end of these runs, and when it was, is still to be told."""
    if endings:
        tx.insert_new("endings", ("run_id", "ended_at"), endings)


def drop_waits(tx: Transaction, run_ids: Sequence[str]) -> None:
    """Nothing is waited for any more by runs that have ended."""
    if run_ids:
        condition, ids = tx.any_of("run_id", run_ids)
        tx.rows(f"delete from waits where {condition} returning key", ids)


def _ended(c: Finish) -> tuple[Any, ...]:
    return (
        c.run_id,
        OUTCOMES[c.decision.move],
        c.number,
        c.first_started_at,
        c.finished_at,
        c.decision.output,
        error_json(c.decision.error),
    )


def _attempt(c: Finish) -> tuple[Any, ...]:
    outcome = {**OUTCOMES, "retry": "failed", "hand_back": "handed_back"}[c.decision.move]
    error = error_json(c.decision.error)
    return (c.run_id, c.fence, c.number, outcome, c.worker_id, c.started_at, c.finished_at, error)


def error_json(error: Failure | None) -> bytes | None:
    """An error as it is stored."""
    return None if error is None else codec.dumps(asdict(error))


class Heartbeat(Command[dict[str, int]], frozen=True):
    """Renew a process's lease; returns the fence of every run the database says it holds."""

    process_id: str
    kind: str
    host: str
    pid: int
    now: Micros
    lease: Micros

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[Heartbeat]) -> list[dict[str, int]]:
        return [_heartbeat(tx, command) for command in commands]


def _heartbeat(tx: Transaction, beat: Heartbeat) -> dict[str, int]:
    now = tx.clock(beat.now)
    if not tx.update("processes", ("id",), ("lease_until",), [(beat.process_id, now + beat.lease)]):
        row = (beat.process_id, beat.kind, beat.host, beat.pid, now, now + beat.lease, 0)
        tx.insert("processes", ("id", "kind", "host", "pid", "started_at", "lease_until", "claimed_to"), [row])
        return {}
    rows = tx.rows(
        "select run_id, fence from queue where held = 0 and worker_id = ? and due_at <= (select claimed_to from processes where id = ?)",
        [beat.process_id, beat.process_id],
    )
    return {row[0]: row[1] for row in rows}


class Rescue(Command[int], frozen=True):
    """Free, or fail when out of attempts, up to `limit` runs whose worker's lease is over; returns how many. What only such
    workers have offered is offered no more."""

    wakes = True

    now: Micros
    limit: int = 500

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[Rescue]) -> list[int]:
        return [_rescue(tx, command) for command in commands]


def _rescue(tx: Transaction, rescue: Rescue) -> int:
    now = tx.clock(rescue.now)
    dead = [row[0] for row in tx.rows("select id from processes where manifest_id is not null and lease_until < ?", [now])]
    if dead:
        withdraw(tx, dead)
    lost = tx.rows(
        "select run_id, fence, attempt, max_attempts, worker_id, claimed_at, first_started_at from queue"
        " where held = 0 and worker_id in (select id from processes where lease_until < ?)"
        " and due_at <= (select max(claimed_to) from processes where lease_until < ?)"
        f" order by due_at, run_id limit ?{tx.skip_locked()}",
        [now, now, rescue.limit],
    )
    spent = [row for row in lost if row[2] >= row[3]]
    mine = tx.delete("queue", ("run_id", "fence"), [row[:2] for row in spent])
    mine |= tx.update(
        "queue",
        ("run_id", "fence"),
        ("due_at", "reason", "worker_id", "claimed_at"),
        [(row[0], row[1], rescue.now, "lease_lost", None, None) for row in lost if row[2] < row[3]],
    )
    # The next claim raises the fence by one more, and until then nobody's fence may match.
    freed = [row for row in lost if row[2] < row[3] and row[0] in mine]
    _raise_fences(tx, [row[0] for row in freed])
    error = error_json(WORKER_LOST)
    tx.update(
        "runs",
        ("id",),
        ("outcome", "attempts", "started_at", "finished_at", "error"),
        [(row[0], "failed", row[2], row[6], rescue.now, error) for row in spent if row[0] in mine],
    )
    ended(tx, [(row[0], rescue.now) for row in spent if row[0] in mine])
    drop_waits(tx, [row[0] for row in spent if row[0] in mine])
    attempts = [(r[0], r[1], r[2], "lease_lost", r[4], r[5], rescue.now, error) for r in lost if r[0] in mine]
    tx.insert("attempts", ATTEMPT_COLUMNS, attempts)
    if not lost:
        tx.rows("delete from processes where lease_until < ?", [now - FORGET])
    return len(mine)


def _raise_fences(tx: Transaction, run_ids: list[str]) -> None:
    if run_ids:
        condition, ids = tx.any_of("run_id", run_ids)
        tx.rows(f"update queue set fence = fence + 1 where {condition}", ids)


class GiveBack(Command[bool], frozen=True):
    """Free a run that was claimed for this worker by a commit whose answer got lost; the attempt does not count."""

    wakes = True

    run_id: str
    fence: int
    worker_id: str
    now: Micros

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[GiveBack]) -> list[bool]:
        sql = (
            "update queue set worker_id = null, claimed_at = null, fence = fence + 1, attempt = attempt - 1, due_at = ?"
            " where run_id = ? and fence = ? and worker_id = ? returning run_id"
        )
        return [bool(tx.rows(sql, [c.now, c.run_id, c.fence, c.worker_id])) for c in commands]


class Retire(Command[None], frozen=True):
    """A process that stops in good order: its lease ends now, and with it what it offers."""

    process_id: str

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[Retire]) -> list[None]:
        tx.write("processes", ("id",), ("lease_until",), [(command.process_id, 0) for command in commands])
        withdraw(tx, [command.process_id for command in commands])
        return [None] * len(commands)


def fences(database: Database, run_ids: Sequence[str]) -> dict[str, int]:
    """The fences of those of some runs that are live."""
    if not run_ids:
        return {}
    sql = f"select run_id, fence from queue where run_id in ({', '.join('?' * len(run_ids))})"
    return {row["run_id"]: row["fence"] for row in database.read(sql, run_ids)}
