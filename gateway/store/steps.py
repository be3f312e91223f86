"""What runs remember: steps, their failed tries, waits, and what steps send. Every write carries the run's fence (G5, G6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from gateway import codec
from gateway.clock import Micros
from gateway.core.outcome import Failure
from gateway.core.steps import Step
from gateway.store.database import Database, Transaction
from gateway.store.inbox import Accept
from gateway.store.journal import Command
from gateway.store.waits import Wait, lock_queue, register

STEP_COLUMNS = (
    "run_id", "key", "kind", "status", "position", "attempts", "started_at", "finished_at", "due_at", "output", "error", "subject",
)  # fmt: skip
CHANGING = ("status", "attempts", "started_at", "finished_at", "due_at", "output", "error")

encode_failure = msgspec.json.Encoder().encode
decode_failure = msgspec.json.Decoder(Failure).decode


class Try(msgspec.Struct, frozen=True):
    """A try at a step that failed."""

    number: int
    started_at: Micros
    finished_at: Micros
    error: Failure


class Remember(Command[bool], frozen=True):
    """Keep a step, new or as it has become, with a failed try or a wait; False when the run has another holder by now."""

    run_id: str
    fence: int
    step: Step
    fresh: bool
    failed: Try | None = None
    wait: Wait | None = None

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[Remember]) -> list[bool]:
        mine = _mine(tx, commands)
        kept = [c for c in commands if (c.run_id, c.fence) in mine]
        waits = _new_waits(tx, kept)
        _keep(tx, kept)
        tries = [(c.run_id, c.step.key, c.fence, *_try(c.failed)) for c in kept if c.failed is not None]
        if tries:
            tx.insert_new("step_attempts", ("run_id", "key", "fence", "number", "started_at", "finished_at", "error"), tries)
        register(tx, waits)
        return [(c.run_id, c.fence) in mine for c in commands]


class Dispatch(Command[Step | None], frozen=True):
    """Keep a step together with the events it sends, or the run it invokes and waits for; returns it as it is kept, None as
    False for Remember. What it sends may have come before: its output has the ids of those."""

    wakes = True

    run_id: str
    fence: int
    step: Step
    accepts: tuple[Accept, ...]
    fresh: bool = True
    wait: Wait | None = None

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[Dispatch]) -> list[Step | None]:
        mine = _mine(tx, commands)
        kept = [c for c in commands if (c.run_id, c.fence) in mine]
        accepted = iter(Accept.execute(tx, [accept for c in kept for accept in c.accepts]))
        kept = [_with_ids(c, [next(accepted).event_id for _ in c.accepts]) for c in kept]
        waits = _new_waits(tx, kept)
        _keep(tx, kept)
        register(tx, waits)
        steps = {(c.run_id, c.fence, c.step.key): c.step for c in kept}
        return [steps.get((c.run_id, c.fence, c.step.key)) for c in commands]


def _with_ids(c: Dispatch, ids: list[str]) -> Dispatch:
    if c.step.kind != "send":
        return c
    return msgspec.structs.replace(c, step=msgspec.structs.replace(c.step, output=codec.dumps(ids)))


class GiveUp(Command[Step | None], frozen=True):
    """End a wait as `step` says, unless what was waited for came first; returns the step as it is then, or None when the run
    has another holder by now."""

    run_id: str
    fence: int
    step: Step

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[GiveUp]) -> list[Step | None]:
        mine = _mine(tx, commands)
        return [_give_up(tx, command) if (command.run_id, command.fence) in mine else None for command in commands]


def _give_up(tx: Transaction, c: GiveUp) -> Step | None:
    if tx.rows("delete from waits where run_id = ? and key = ? returning key", [c.run_id, c.step.key]):
        tx.write("steps", ("run_id", "key"), CHANGING, [(c.run_id, c.step.key, *_changing(c.step))])
        return c.step
    found = tx.rows(f"select {', '.join(STEP_COLUMNS)} from steps where run_id = ? and key = ?", [c.run_id, c.step.key])
    return step_of(found[0]) if found else None


def steps_of(tx: Transaction, run_ids: Sequence[str]) -> dict[str, tuple[Step, ...]]:
    """What some runs remember, in the order it began."""
    if not run_ids:
        return {}
    condition, ids = tx.any_of("run_id", run_ids)
    found: dict[str, list[Step]] = {}
    for row in tx.rows(f"select {', '.join(STEP_COLUMNS)} from steps where {condition} order by run_id, position", ids):
        found.setdefault(row[0], []).append(step_of(row))
    return {run_id: tuple(steps) for run_id, steps in found.items()}


def step_of(row: Sequence[Any]) -> Step:
    """A step from its row, in the order of STEP_COLUMNS."""
    _, key, kind, status, position, attempts, started_at, finished_at, due_at, output, error, subject = row
    return Step(
        key=key,
        kind=kind,
        status=status,
        position=position,
        attempts=attempts,
        started_at=started_at,
        finished_at=finished_at,
        due_at=due_at,
        output=None if output is None else bytes(output),
        error=None if error is None else decode_failure(bytes(error)),
        subject=subject,
    )


def _mine(tx: Transaction, commands: Sequence[Remember] | Sequence[Dispatch] | Sequence[GiveUp]) -> set[tuple[str, int]]:
    """The holders, as (run, fence), that still are: their queue rows do not change before this is committed."""
    return set(lock_queue(tx, {c.run_id for c in commands}))


def _new_waits(tx: Transaction, commands: Sequence[Remember] | Sequence[Dispatch]) -> list[tuple[str, str, Wait]]:
    """The waits of steps that are not kept yet: of one that is, whose answer got lost, the wait may have ended since."""
    waits = [(c.run_id, c.step.key, c.wait) for c in commands if c.wait is not None]
    if not waits:
        return []
    condition, ids = tx.any_of("run_id", sorted({wait[0] for wait in waits}))
    there = {(row[0], row[1]) for row in tx.rows(f"select run_id, key from steps where {condition}", ids)}
    return [wait for wait in waits if wait[:2] not in there]


def _keep(tx: Transaction, commands: Sequence[Remember] | Sequence[Dispatch]) -> None:
    fresh = [(c.run_id, c.step.key, c.step.kind, c.step.status, c.step.position, *_rest(c.step)) for c in commands if c.fresh]
    if fresh:
        tx.insert_new("steps", STEP_COLUMNS, fresh)
    known = [(c.run_id, c.step.key, *_changing(c.step)) for c in commands if not c.fresh]
    if known:
        tx.write("steps", ("run_id", "key"), CHANGING, known)


def _rest(step: Step) -> tuple[Any, ...]:
    error = None if step.error is None else encode_failure(step.error)
    return (step.attempts, step.started_at, step.finished_at, step.due_at, step.output, error, step.subject)


def _changing(step: Step) -> tuple[Any, ...]:
    return (step.status, *_rest(step)[:-1])


def _try(failed: Try) -> tuple[Any, ...]:
    return (failed.number, failed.started_at, failed.finished_at, encode_failure(failed.error))


def stored_step(database: Database, run_id: str, key: str) -> Step | None:
    """A step as it is stored now."""
    rows = database.read(f"select {', '.join(STEP_COLUMNS)} from steps where run_id = ? and key = ?", [run_id, key])
    return step_of([rows[0][name] for name in STEP_COLUMNS]) if rows else None
