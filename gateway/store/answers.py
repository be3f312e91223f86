"""Answers to POSTs with an `Idempotency-Key`, kept for a day."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gateway.clock import SECOND, Micros
from gateway.store.database import Transaction
from gateway.store.journal import Command

KEPT: Micros = 24 * 3600 * SECOND
SERVED_WITHIN: Micros = 60 * SECOND  # what is still being served after this has died


class Answered(msgspec.Struct, frozen=True):
    """An earlier request with the same key; without a status it is still being served."""

    fingerprint: bytes
    status: int | None
    content_type: str | None
    body: bytes


class Reserve(Command[Answered | None], frozen=True):
    """Take a key for the request that is about to be carried out; or the request that has it."""

    key_hash: bytes
    fingerprint: bytes
    now: Micros

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[Reserve]) -> list[Answered | None]:
        return [_reserve(tx, command) for command in commands]


def _reserve(tx: Transaction, c: Reserve) -> Answered | None:
    tx.rows(
        "delete from answers where key_hash = ? and (created_at < ? or status is null and created_at < ?)",
        [c.key_hash, c.now - KEPT, c.now - SERVED_WITHIN],
    )
    if tx.insert_new("answers", ("key_hash", "fingerprint", "created_at"), [(c.key_hash, c.fingerprint, c.now)]):
        return None
    [row] = tx.rows("select fingerprint, status, content_type, body from answers where key_hash = ?", [c.key_hash])
    return Answered(bytes(row[0]), row[1], row[2], bytes(row[3] or b""))


class KeepAnswer(Command[None], frozen=True):
    """What the request was answered."""

    key_hash: bytes
    status: int
    content_type: str
    body: bytes

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[KeepAnswer]) -> list[None]:
        rows = [(c.key_hash, c.status, c.content_type, c.body) for c in commands]
        tx.write("answers", ("key_hash",), ("status", "content_type", "body"), rows)
        return [None] * len(commands)


class Abandon(Command[None], frozen=True):
    """Forget a request whose answer says to send it again."""

    key_hash: bytes

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[Abandon]) -> list[None]:
        tx.delete("answers", ("key_hash",), [(command.key_hash,) for command in commands])
        return [None] * len(commands)
