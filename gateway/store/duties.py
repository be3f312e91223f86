"""Duties: what one process does for all."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.clock import Micros
from gateway.store.database import Transaction
from gateway.store.journal import Command


class TakeDuty(Command[bool], frozen=True):
    """Take a duty, or keep it, for `lease`; False while another process has it."""

    name: str
    holder: str
    now: Micros
    lease: Micros

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[TakeDuty]) -> list[bool]:
        return [_take(tx, command) for command in commands]


def _take(tx: Transaction, c: TakeDuty) -> bool:
    now = tx.clock(c.now)
    sql = (
        "insert into duties (name, holder, until) values (?, ?, ?) on conflict (name) do update"
        " set holder = excluded.holder, until = excluded.until where duties.until <= ? or duties.holder = excluded.holder"
        " returning name"
    )
    return bool(tx.rows(sql, [c.name, c.holder, now + c.lease, now]))


class LeaveDuties(Command[None], frozen=True):
    """Leave all the duties of a process to others."""

    holder: str

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[LeaveDuties]) -> list[None]:
        tx.delete("duties", ("holder",), [(command.holder,) for command in commands])
        return [None] * len(commands)
