"""Rare writes: the control of functions (pause, resume) and of runs (cancel, retry, replay)."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.clock import Micros
from gateway.core.outcome import Failure
from gateway.store.database import Transaction
from gateway.store.inbox import NewDelivery, deliver
from gateway.store.journal import Command
from gateway.store.runs import ATTEMPT_COLUMNS, drop_waits, ended, error_json


class Pause(Command[None], frozen=True):
    """Hold the runs of a function, given by its id and what its versions are queued as; those that are running go on."""

    names: tuple[str, ...]
    now: Micros

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[Pause]) -> list[None]:
        for c in commands:
            tx.insert_new("pauses", ("function_id", "paused_at"), [(name, c.now) for name in c.names])
            condition, names = tx.any_of("function_id", c.names)
            tx.rows(f"update queue set held = 2 where held = 0 and worker_id is null and {condition}", names)
        return [None] * len(commands)


class Resume(Command[None], frozen=True):
    """Free the runs of a paused function."""

    wakes = True

    names: tuple[str, ...]

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[Resume]) -> list[None]:
        for c in commands:
            tx.delete("pauses", ("function_id",), [(name,) for name in c.names])
            condition, names = tx.any_of("function_id", c.names)
            tx.rows(f"update queue set held = 0 where held > 0 and held = 2 and {condition}", names)
        return [None] * len(commands)


class FreeResumed(Command[None], frozen=True):
    """Free what is held of functions that are paused no more: a gateway may have held it before it knew."""

    wakes = True

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[FreeResumed]) -> list[None]:
        tx.rows("update queue set held = 0 where held > 0 and held = 2 and function_id not in (select function_id from pauses)")
        return [None] * len(commands)


class CancelRun(Command[bool], frozen=True):
    """Make a live run final as cancelled, for a reason; False when it was final or unknown. Its holder stops within a second."""

    wakes = True

    run_id: str
    now: Micros
    reason: str = "it was cancelled"

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[CancelRun]) -> list[bool]:
        return [_cancel(tx, command) for command in commands]


def _cancel(tx: Transaction, c: CancelRun) -> bool:
    held = tx.rows(
        "delete from queue where run_id = ? returning fence, attempt, first_started_at, worker_id, claimed_at",
        [c.run_id],
    )
    if not held:
        return False
    fence, attempt, started_at, worker_id, claimed_at = held[0]
    error = error_json(Failure("Cancelled", c.reason))
    columns = ("outcome", "attempts", "started_at", "finished_at", "error")
    tx.write("runs", ("id",), columns, [(c.run_id, "cancelled", attempt, started_at, c.now, error)])
    if worker_id is not None:
        row = (c.run_id, fence, attempt, "cancelled", worker_id, claimed_at, c.now, error)
        tx.insert("attempts", ATTEMPT_COLUMNS, [row])
    drop_waits(tx, [c.run_id])
    ended(tx, [(c.run_id, c.now)])
    return True


class RetryRun(Command[bool], frozen=True):
    """Queue a failed or cancelled run again, with all its attempts; False when it is not one."""

    wakes = True

    run_id: str
    max_attempts: int
    now: Micros
    queued_as: str | None = None

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[RetryRun]) -> list[bool]:
        return [_retry(tx, command) for command in commands]


def _retry(tx: Transaction, command: RetryRun) -> bool:
    row = tx.rows(
        "update runs set outcome = null, finished_at = null, output = null, error = null, attempts = 0"
        " where id = ? and outcome in ('failed', 'cancelled') returning function_id",
        [command.run_id],
    )
    if not row:
        return False
    # What failed for good is to be tried again, and what was given up waiting for is waited for no more.
    tx.rows(
        "delete from steps where run_id = ? and (status in ('failed', 'retrying') or status = 'waiting' and kind <> 'sleep') returning key",
        [command.run_id],
    )
    # The fence goes on from where it was: an old holder of this run must not match.
    used = " union all ".join(f"select fence from {table} where run_id = ?" for table in ("attempts", "step_attempts", "run_logs"))
    fence = tx.rows(f"select coalesce(max(fence), 0) from ({used}) as used", [command.run_id] * 3)[0][0] + 2
    # It has started before, and so its steps are looked for.
    columns = ("run_id", "function_id", "due_at", "priority", "held", "attempt", "max_attempts", "fence", "first_started_at")
    queued_as = command.queued_as or row[0][0]
    tx.insert("queue", columns, [(command.run_id, queued_as, command.now, 0, 0, 0, command.max_attempts, fence, command.now - 1)])
    return True


class Replay(Command[bool], frozen=True):
    """New runs of a stored event, under a replay id of their own; False when the event is not there any more."""

    wakes = True

    event_id: str
    replay_id: str
    deliveries: tuple[NewDelivery, ...]
    now: Micros

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[Replay]) -> list[bool]:
        return [_replay(tx, command) for command in commands]


def _replay(tx: Transaction, c: Replay) -> bool:
    # Locked, so that retention does not remove it meanwhile.
    if not tx.rows(f"select id from events where id = ?{tx.for_update()}", [c.event_id]):
        return False
    deliver(tx, [(c.event_id, c.replay_id, delivery) for delivery in c.deliveries], {c.event_id: c.now})
    return True
