"""Who may come in: sources with their sealed secrets, API keys, and when each was last used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from gateway.clock import Micros
from gateway.store.database import Transaction
from gateway.store.journal import Command

BY_API = "api"


class SaveSource(Command[bool], frozen=True):
    """Keep a source as it is configured; False when one of this name was made through the API, which stays.

    `renumbered`: its secrets' numbers stand for others than before, so that what was noted of their use is void.
    """

    id: str
    name: str
    provider: str
    secrets: bytes
    origin: str
    now: Micros
    renumbered: bool = False

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[SaveSource]) -> list[bool]:
        return [_save_source(tx, command) for command in commands]


def _save_source(tx: Transaction, c: SaveSource) -> bool:
    # Several gateways may start at once.
    columns = ("id", "name", "provider", "secrets", "origin", "created_at", "enabled", "version")
    if tx.insert_new("sources", columns, [(c.id, c.name, c.provider, c.secrets, c.origin, c.now, 1, 1)]):
        return True
    [(origin, id_)] = tx.rows("select origin, id from sources where name = ?", [c.name])
    if origin == BY_API:
        return False
    tx.update("sources", ("name",), ("provider", "secrets", "origin", "enabled"), [(c.name, c.provider, c.secrets, c.origin, 1)])
    if c.renumbered:
        tx.delete("secret_uses", ("source_id",), [(id_,)])
    return True


class CreateSource(Command[bool], frozen=True):
    """Make a source; False when the name is taken, but by the one that it is `instead_of`: its id and version."""

    id: str
    name: str
    provider: str
    secrets: bytes
    now: Micros
    instead_of: tuple[str, int] | None = None

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[CreateSource]) -> list[bool]:
        return [_create_source(tx, command) for command in commands]


def _create_source(tx: Transaction, c: CreateSource) -> bool:
    if c.instead_of is not None:
        tx.delete("sources", ("id", "version"), [c.instead_of])
    columns = ("id", "name", "provider", "secrets", "origin", "created_at", "enabled", "version")
    return bool(tx.insert_new("sources", columns, [(c.id, c.name, c.provider, c.secrets, BY_API, c.now, 1, 1)]))


class ChangeSource(Command[bool], frozen=True):
    """Replace the secrets and the state of a source; False when it has another version by now, or is gone."""

    id: str
    version: int
    secrets: bytes
    enabled: bool

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[ChangeSource]) -> list[bool]:
        sql = "update sources set secrets = ?, enabled = ?, version = version + 1 where id = ? and version = ? returning id"
        return [bool(tx.rows(sql, [c.secrets, int(c.enabled), c.id, c.version])) for c in commands]


class DeleteSource(Command[bool], frozen=True):
    """Remove a source; what it received stays."""

    id: str
    version: int

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[DeleteSource]) -> list[bool]:
        return [bool(tx.delete("sources", ("id", "version"), [(c.id, c.version)])) for c in commands]


class SaveKey(Command[bool], frozen=True):
    """Keep an API key's hash; False when there is one with this id already."""

    id: str
    name: str
    hash: bytes
    scopes: str
    now: Micros
    expires_at: Micros | None = None

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[SaveKey]) -> list[bool]:
        columns = ("id", "name", "hash", "scopes", "created_at", "expires_at")
        return [bool(tx.insert_new("api_keys", columns, [(c.id, c.name, c.hash, c.scopes, c.now, c.expires_at)])) for c in commands]


class RevokeKey(Command[bool], frozen=True):
    """Make an API key void at once; False when there is none."""

    id: str

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[RevokeKey]) -> list[bool]:
        # The first key's row stays, so that a restart does not make another.
        sql = "update api_keys set scopes = '' where id = ? and scopes <> '' returning id"
        return [bool(tx.rows(sql, [c.id])) for c in commands]


class NoteUses(Command[None], frozen=True):
    """When secrets, as (source id, number), and API keys, by id, were last used."""

    secrets: Mapping[tuple[str, int], Micros] = msgspec.field(default_factory=dict[tuple[str, int], Micros])
    keys: Mapping[str, Micros] = msgspec.field(default_factory=dict[str, Micros])

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[NoteUses]) -> list[None]:
        for c in commands:
            for (source_id, n), at in sorted(c.secrets.items()):
                tx.rows(
                    "insert into secret_uses (source_id, n, last_used_at) values (?, ?, ?)"
                    " on conflict (source_id, n) do update set last_used_at = excluded.last_used_at"
                    " where excluded.last_used_at > secret_uses.last_used_at returning n",
                    [source_id, n, at],
                )
            tx.update("api_keys", ("id",), ("last_used_at",), sorted(c.keys.items()))
        return [None] * len(commands)
