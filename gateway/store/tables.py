"""The schema, for both databases. Times are microseconds since the epoch, UTC; `…_at` columns all hold one.

`runs` is history: written at accept and at the end. What is live has a row in `queue`, which is all that is ever searched
for work, and which goes in the transaction that ends the run. An inbound body is stored once, with its request.
"""

# SQLModel declares `__tablename__` as a descriptor and documents setting it to a string.
# pyright: reportAssignmentType=false

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, Index, LargeBinary, PrimaryKeyConstraint, text
from sqlmodel import BigInteger, Column, Field, SQLModel


def _where(condition: str) -> dict[str, Any]:
    """The condition of a partial index, for both databases."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


# Kept in the order the data flows.


class ManifestTable(SQLModel, table=True):
    """One atomic set of function specs that an app has published; `processes` says which workers offer it."""

    __tablename__ = "manifests"
    id: str = Field(primary_key=True)
    app: str = Field(default="local", sa_column_kwargs={"server_default": "local"})
    manifest: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    published_at: int = Field(sa_type=BigInteger)


class SourceTable(SQLModel, table=True):
    """One configured inbound endpoint; `secrets` is encrypted under the master key."""

    __tablename__ = "sources"
    id: str = Field(primary_key=True)
    name: str = Field(unique=True)
    provider: str
    secrets: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    origin: str
    created_at: int = Field(sa_type=BigInteger)
    enabled: int = Field(default=1, sa_column_kwargs={"server_default": "1"})
    version: int = Field(default=1, sa_column_kwargs={"server_default": "1"})


class SecretUseTable(SQLModel, table=True):
    """When a source's secret last matched; written now and then, apart from what it describes."""

    __tablename__ = "secret_uses"
    source_id: str = Field(primary_key=True)
    n: int = Field(primary_key=True)
    last_used_at: int = Field(sa_type=BigInteger)


class RequestTable(SQLModel, table=True):
    """One inbound HTTP request, byte for byte; `headers` is a JSON list of pairs."""

    __tablename__ = "requests"
    __table_args__ = (
        CheckConstraint("status in ('accepted', 'duplicate', 'quarantined')", name="requests_status"),
        Index("requests_by_source", "source", "id"),
        Index("requests_refused", "status", "id", **_where("status <> 'accepted'")),
    )  # fmt: skip
    id: str = Field(primary_key=True)
    source: str
    received_at: int = Field(sa_type=BigInteger)
    status: str
    reason: str | None = None
    secret_index: int | None = None
    event_id: str | None = None
    method: str
    url: str
    headers: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class IdempotencyKeyTable(SQLModel, table=True):
    """Which event a (source, key) became; narrow and apart, so that events can go and the key still holds.

    `key`: see `inbox.kept_key`.
    """

    __tablename__ = "idempotency_keys"
    __table_args__ = (PrimaryKeyConstraint("key", name="idempotency_keys_by_key"), {"sqlite_with_rowid": False})
    key: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    event_id: str
    created_at: int = Field(sa_type=BigInteger)


class IdempotencyHashTable(SQLModel, table=True):
    """The keys of before schema 0007, by their hashes alone. No row is added, and what is old goes."""

    __tablename__ = "idempotency_hashes"
    __table_args__ = ({"sqlite_with_rowid": False},)
    key_hash: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    event_id: str
    created_at: int = Field(sa_type=BigInteger)


class EventTable(SQLModel, table=True):
    """One fact. Its data is `data`, or the value at `data_path` in the body of its request."""

    __tablename__ = "events"
    __table_args__ = (Index("events_by_name", "name", "id"), Index("events_by_source", "source", "id"))
    id: str = Field(primary_key=True)
    name: str
    source: str
    key: str
    occurred_at: int = Field(sa_type=BigInteger)
    received_at: int = Field(sa_type=BigInteger)
    request_id: str | None = None
    data_path: str = ""
    data: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    attributes: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    traceparent: str | None = None


class DeliveryTable(SQLModel, table=True):
    """What became of one event for one function: a run, or skipped with the reason. `replay_id` is empty the first time."""

    __tablename__ = "deliveries"
    __table_args__ = (
        CheckConstraint("(run_id is null) <> (skip_reason is null)", name="deliveries_run_or_reason"),
        {"sqlite_with_rowid": False},
    )
    event_id: str = Field(primary_key=True)
    function_id: str = Field(primary_key=True)
    replay_id: str = Field(primary_key=True, default="")
    run_id: str | None = None
    skip_reason: str | None = None


class RunTable(SQLModel, table=True):
    """One execution of a function, as history. `outcome` is empty while the run has a queue row.

    `parent_id`: the run whose step `parent_key` invoked it, or without one the failed run that it is to handle.
    """

    __tablename__ = "runs"
    __table_args__ = (
        CheckConstraint("(outcome is null) = (finished_at is null)", name="runs_final_has_time"),
        CheckConstraint("outcome in ('succeeded', 'failed', 'cancelled')", name="runs_outcome"),
        Index("runs_by_function", "function_id", "id"),
        Index("runs_unhappy", "outcome", "id", **_where("outcome in ('failed', 'cancelled')")),
    )  # fmt: skip
    id: str = Field(primary_key=True)
    event_id: str
    function_id: str
    created_at: int = Field(sa_type=BigInteger)
    outcome: str | None = None
    attempts: int = 0
    started_at: int | None = Field(default=None, sa_type=BigInteger)
    finished_at: int | None = Field(default=None, sa_type=BigInteger)
    output: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    error: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    parent_id: str | None = None
    parent_key: str | None = None


class QueueTable(SQLModel, table=True):
    """A live run: when it is due, who holds it, and the fence that its holder's writes must carry.

    `held` rows are not claimable for now: 1, nobody offers their function; 2, it is paused. The indexes name nothing that a
    claim changes, so that on PostgreSQL a claim is a HOT update.
    """

    __tablename__ = "queue"
    __table_args__ = (
        CheckConstraint("(worker_id is null) = (claimed_at is null)", name="queue_holder_has_time"),
        Index("queue_due", "due_at", "run_id", **_where("held = 0")),
        Index("queue_held", "function_id", "run_id", **_where("held > 0")),
    )
    run_id: str = Field(primary_key=True)
    function_id: str
    due_at: int = Field(sa_type=BigInteger)
    priority: int = 0
    held: int = 0
    attempt: int = 0
    max_attempts: int
    fence: int = 0
    reason: str | None = None
    worker_id: str | None = None
    claimed_at: int | None = Field(default=None, sa_type=BigInteger)
    first_started_at: int | None = Field(default=None, sa_type=BigInteger)


class AttemptTable(SQLModel, table=True):
    """One ended try at a run. The fence it ran under is its number in the run's whole life."""

    __tablename__ = "attempts"
    __table_args__ = ({"sqlite_with_rowid": False},)
    run_id: str = Field(primary_key=True)
    fence: int = Field(primary_key=True)
    number: int
    outcome: str
    worker_id: str
    started_at: int = Field(sa_type=BigInteger)
    finished_at: int = Field(sa_type=BigInteger)
    error: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))


class StepTable(SQLModel, table=True):
    """A step of a run: see `core.steps.Step`, whose fields these are."""

    __tablename__ = "steps"
    __table_args__ = (
        CheckConstraint("status in ('succeeded', 'failed', 'retrying', 'waiting')", name="steps_status"),
        CheckConstraint("(status in ('succeeded', 'failed')) = (finished_at is not null)", name="steps_final_has_time"),
    )
    run_id: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    kind: str
    status: str
    position: int
    attempts: int
    started_at: int = Field(sa_type=BigInteger)
    finished_at: int | None = Field(default=None, sa_type=BigInteger)
    due_at: int | None = Field(default=None, sa_type=BigInteger)
    output: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    error: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    subject: str | None = None


class StepAttemptTable(SQLModel, table=True):
    """A try at a step that failed; of one that succeeded the step itself tells."""

    __tablename__ = "step_attempts"
    run_id: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    fence: int = Field(primary_key=True)
    number: int
    started_at: int = Field(sa_type=BigInteger)
    finished_at: int = Field(sa_type=BigInteger)
    error: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class WaitTable(SQLModel, table=True):
    """What a run waits for. Who deletes the row, and nobody else, may end the wait. `kind` `cancel`: an event that cancels."""

    __tablename__ = "waits"
    __table_args__ = (Index("waits_by_match", "match_hash"), {"sqlite_with_rowid": False})
    run_id: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    kind: str
    match_hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    since: int = Field(sa_type=BigInteger)
    until: int | None = Field(default=None, sa_type=BigInteger)
    condition: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))


class WaitPathTable(SQLModel, table=True):
    """By which value of an event of this name something has waited: what has to be kept in `arrivals`.

    `mark`: which transactions have begun after it was there. Until it is `settled`, others may commit events without knowing it.
    """

    __tablename__ = "wait_paths"
    __table_args__ = ({"sqlite_with_rowid": False},)
    name: str = Field(primary_key=True)
    path: str = Field(primary_key=True)
    created_at: int = Field(sa_type=BigInteger)
    mark: int = Field(sa_type=BigInteger)
    settled: int


class ArrivalTable(SQLModel, table=True):
    """An event that something may wait for; `seen` once the waits that were there have been looked at."""

    __tablename__ = "arrivals"
    __table_args__ = (
        Index("arrivals_unseen", "event_id", **_where("seen = 0")),
        Index("arrivals_by_event", "event_id"),
        {"sqlite_with_rowid": False},
    )
    match_hash: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    event_id: str = Field(primary_key=True)
    seen: int


class EndingTable(SQLModel, table=True):
    """A run whose end somebody is still to be told: its parent, its `on_failure`, the functions that listen to ends."""

    __tablename__ = "endings"
    __table_args__ = ({"sqlite_with_rowid": False},)
    run_id: str = Field(primary_key=True)
    ended_at: int = Field(sa_type=BigInteger)


class ProgressTable(SQLModel, table=True):
    """How far a run says it is."""

    __tablename__ = "progress"
    __table_args__ = ({"sqlite_with_rowid": False},)
    run_id: str = Field(primary_key=True)
    done: int = Field(sa_type=BigInteger)
    total: int | None = Field(default=None, sa_type=BigInteger)
    message: str
    at: int = Field(sa_type=BigInteger)


class RunKeyTable(SQLModel, table=True):
    """A function's idempotency key, and the run that has it until when."""

    __tablename__ = "run_keys"
    __table_args__ = (Index("run_keys_by_age", "until"), {"sqlite_with_rowid": False})
    key_hash: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    run_id: str
    until: int = Field(sa_type=BigInteger)


class ProcessTable(SQLModel, table=True):
    """One gateway or worker process and its lease. `claimed_to`: no run that it has claimed was due later. `manifest_id`: what
    functions it offers."""

    __tablename__ = "processes"
    id: str = Field(primary_key=True)
    host: str
    pid: int
    started_at: int = Field(sa_type=BigInteger)
    lease_until: int = Field(sa_type=BigInteger)
    kind: str = Field(default="worker", sa_column_kwargs={"server_default": "worker"})
    claimed_to: int = Field(sa_type=BigInteger, sa_column_kwargs={"server_default": "9223372036854775807"})
    manifest_id: str | None = None


class DutyTable(SQLModel, table=True):
    """Something that one process does for all, and which one it is until when."""

    __tablename__ = "duties"
    name: str = Field(primary_key=True)
    holder: str
    until: int = Field(sa_type=BigInteger)


class PauseTable(SQLModel, table=True):
    """A function whose runs wait until it is resumed."""

    __tablename__ = "pauses"
    function_id: str = Field(primary_key=True)
    paused_at: int = Field(sa_type=BigInteger)


class RunLogTable(SQLModel, table=True):
    """One line that a run has logged, in its attempt under `fence`, and in `step` where it was said in one."""

    __tablename__ = "run_logs"
    __table_args__ = ({"sqlite_with_rowid": False},)
    run_id: str = Field(primary_key=True)
    fence: int = Field(primary_key=True)
    n: int = Field(primary_key=True)
    attempt: int
    at: int = Field(sa_type=BigInteger)
    level: str
    message: str
    step: str | None = None


class StatTable(SQLModel, table=True):
    """How many webhooks of a source, or runs of a function, ended how within a minute since the epoch, and how long they took.

    Minute 0 holds the total of all time. `b0` to `b7`: how many took at most 5, 25, 100 or 500 ms, 1, 5, 30 or 120 s.
    """

    __tablename__ = "stats"
    __table_args__ = ({"sqlite_with_rowid": False},)
    minute: int = Field(sa_column=Column(BigInteger, primary_key=True))
    kind: str = Field(primary_key=True)
    subject: str = Field(primary_key=True)
    outcome: str = Field(primary_key=True)
    count: int = Field(sa_type=BigInteger)
    total_us: int = Field(sa_type=BigInteger)
    b0: int = Field(sa_type=BigInteger)
    b1: int = Field(sa_type=BigInteger)
    b2: int = Field(sa_type=BigInteger)
    b3: int = Field(sa_type=BigInteger)
    b4: int = Field(sa_type=BigInteger)
    b5: int = Field(sa_type=BigInteger)
    b6: int = Field(sa_type=BigInteger)
    b7: int = Field(sa_type=BigInteger)


class AnswerTable(SQLModel, table=True):
    """What a POST with an `Idempotency-Key` was answered; without a status it is still being served."""

    __tablename__ = "answers"
    __table_args__ = (Index("answers_by_age", "created_at"),)
    key_hash: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    fingerprint: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    created_at: int = Field(sa_type=BigInteger)
    status: int | None = None
    content_type: str | None = None
    body: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))


class ApiKeyTable(SQLModel, table=True):
    """An API key, hashed with SHA-256 (it is 256 random bits, so a slow hash adds nothing)."""

    __tablename__ = "api_keys"
    id: str = Field(primary_key=True)
    name: str
    hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False, unique=True))
    scopes: str
    created_at: int = Field(sa_type=BigInteger)
    expires_at: int | None = Field(default=None, sa_type=BigInteger)
    last_used_at: int | None = Field(default=None, sa_type=BigInteger)


METADATA = SQLModel.metadata
