"""What functions are offered: the manifests of the workers that live, and of each app the last one when none does.

Workers of one app may differ for a while, as in a deploy that replaces them one by one: all that any of them offers is
offered then, and of what several offer under one name the manifest counts that was published last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from gateway.clock import Micros
from gateway.core.spec import Manifest
from gateway.store.database import Transaction
from gateway.store.journal import Command

UNUSED = "not exists (select 1 from processes where processes.manifest_id = manifests.id)"


class Publish(Command[None], frozen=True):
    """Offer an app's functions; by `worker_id` until that worker's lease is over, and without one until another is published.

    Runs of functions nobody offers any more are held, others freed.
    """

    wakes = True

    app: str
    manifest: Manifest
    now: Micros
    worker_id: str | None = None

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[Publish]) -> list[None]:
        for command in commands:
            _publish(tx, command)
        hold(tx)
        return [None] * len(commands)


def _publish(tx: Transaction, c: Publish) -> None:
    raw = msgspec.json.encode(c.manifest)
    id = hashlib.blake2b(c.app.encode() + b"\0" + raw, digest_size=16).hexdigest()
    _lock(tx)
    # On a conflict an update, to lock the row: whoever removes it must know of every worker that has taken it up before.
    tx.rows(
        "insert into manifests (id, app, manifest, published_at) values (?, ?, ?, ?)"
        " on conflict (id) do update set app = excluded.app returning id",
        [id, c.app, raw, c.now],
    )
    if c.worker_id is not None:
        tx.write("processes", ("id",), ("manifest_id",), [(c.worker_id, id)])
    tx.rows(f"delete from manifests where app = ? and id <> ? and {UNUSED} returning id", [c.app, id])


def withdraw(tx: Transaction, worker_ids: Sequence[str]) -> None:
    """Offer no more what only these workers have offered, unless nobody else is left of their app."""
    _lock(tx)
    condition, ids = tx.any_of("id", worker_ids)
    taken = tx.rows(f"select distinct manifest_id from processes where manifest_id is not null and {condition}", ids)
    if not taken:
        return
    tx.write("processes", ("id",), ("manifest_id",), [(worker_id, None) for worker_id in worker_ids])
    gone = [
        tx.rows(
            f"delete from manifests where id = ? and {UNUSED}"
            " and exists (select 1 from manifests other where other.app = manifests.app and other.id <> manifests.id) returning id",
            [manifest_id],
        )
        for (manifest_id,) in taken
    ]
    if any(gone):
        hold(tx)


def _lock(tx: Transaction) -> None:
    tx.rows(f"select id from manifests order by id{tx.for_update()}")


def hold(tx: Transaction) -> None:
    """Hold the runs of functions that nobody offers, free others."""
    offered = [spec.queued_as for (raw,) in tx.rows("select manifest from manifests") for spec in decode_manifest(raw).specs]
    condition, ids = tx.any_of("function_id", offered)
    tx.rows(f"update queue set held = 0 where held > 0 and held = 1 and {condition}", ids)
    tx.rows(f"update queue set held = 1 where held = 0 and worker_id is null and not {condition}", ids)


def decode_manifest(raw: bytes) -> Manifest:
    """A manifest as it is stored."""
    return msgspec.json.decode(raw, type=Manifest)
