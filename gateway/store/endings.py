"""The ends of runs, told once: to the run that waits for one, to the handler of a failure, and as an event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway.clock import Micros
from gateway.store.database import Database, Transaction
from gateway.store.inbox import Accept, NewDelivery, deliver
from gateway.store.journal import Command
from gateway.store.waits import WaitEnd, end_waits

LIMIT = 200


class Ending(msgspec.Struct, frozen=True):
    """A run that has ended, with the event that it was for."""

    run_id: str
    ended_at: Micros
    function_id: str
    outcome: str
    output: bytes | None
    error: bytes | None
    parent_id: str | None
    parent_key: str | None
    event_id: str
    event_name: str


class Tell(Command[bool], frozen=True):
    """Tell of an end: to the step that waits for it, to a handler, by an event; False when somebody else has."""

    wakes = True

    run_id: str
    event_id: str
    now: Micros
    parent: WaitEnd | None
    handler: NewDelivery | None
    event: Accept | None

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[Tell]) -> list[bool]:
        first = tx.delete("endings", ("run_id",), [(c.run_id,) for c in commands])
        mine = [c for c in commands if c.run_id in first]
        end_waits(tx, [c.parent for c in mine if c.parent is not None])
        # A run that was retried may fail once more, for the same event.
        handled = [(c.event_id, f"failed {c.run_id} {c.handler.run_id}", c.handler) for c in mine if c.handler is not None]
        if handled:
            deliver(tx, handled, {c.event_id: c.now for c in mine})
        Accept.execute(tx, [c.event for c in mine if c.event is not None])
        return [c.run_id in first for c in commands]


def untold(database: Database) -> list[Ending]:
    """Ends that are still to be told of."""
    rows: Sequence[Mapping[str, Any]] = database.read(
        "select n.run_id, n.ended_at, r.function_id, r.outcome, r.output, r.error, r.parent_id, r.parent_key, r.event_id,"
        " e.name as event_name from endings n join runs r on r.id = n.run_id join events e on e.id = r.event_id"
        f" where r.outcome is not null order by n.run_id limit {LIMIT}"
    )
    return [msgspec.convert(row, Ending) for row in rows]
