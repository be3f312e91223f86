"""Accepting: a request, its event and one run for each matching function, in one transaction (G1, G2, G3)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from gateway import codec
from gateway.clock import Micros
from gateway.store.database import Row, Transaction
from gateway.store.journal import Command
from gateway.store.waits import Wait, keep_arrivals, register


class RequestRecord(msgspec.Struct, frozen=True):
    """An inbound request as it is kept."""

    id: str
    source: str
    received_at: Micros
    method: str
    url: str
    headers: bytes
    body: bytes
    secret_index: int | None = None


class EventRecord(msgspec.Struct, frozen=True):
    """An event as it is kept."""

    id: str
    name: str
    source: str
    key: str
    occurred_at: Micros
    received_at: Micros
    attributes: bytes
    request_id: str | None = None
    data_path: str = ""
    data: bytes | None = None
    traceparent: str | None = None


class Once(msgspec.Struct, frozen=True):
    """A function's idempotency key: no other run with it until then."""

    key_hash: bytes
    until: Micros


class NewDelivery(msgspec.Struct, frozen=True):
    """A run to make for one function, or why there is none.

    `queued_as`: the function's id with its version, if it has one. `once`: its idempotency key. `cancels`: which events
    cancel the run. `parent_id`, `parent_key`: the step that waits for it, or without a key the run whose failure it handles.
    """

    function_id: str
    max_attempts: int
    run_id: str | None
    skip_reason: str | None = None
    held: int = 0
    queued_as: str | None = None
    once: Once | None = None
    cancels: tuple[Wait, ...] = ()
    parent_id: str | None = None
    parent_key: str | None = None


HASH_BYTES = 16

Delivery = tuple[str, str, NewDelivery]  # event id, replay id, what becomes of it


class Accepted(msgspec.Struct, frozen=True):
    """The event a request became: the first one with its key."""

    event_id: str
    duplicate: bool


class Accept(Command[Accepted], frozen=True):
    """Keep an event and its deliveries, unless its (source, key) is known; keep its request either way.

    `now`: when it is accepted, where that is later than it was received.
    """

    wakes = True

    event: EventRecord
    deliveries: tuple[NewDelivery, ...]
    request: RequestRecord | None = None
    now: Micros | None = None

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[Accept]) -> list[Accepted]:
        plain = [c for c in commands if c.request is not None and c.now is None and _are_plain(c.deliveries)]
        webhooks = (_webhook_row(c.event, c.request) for c in plain if c.request is not None)
        kept = tx.accept(webhooks, (_delivery_row(c.event, d) for c in plain for d in c.deliveries)) if plain else set[str]()
        others = iter(_accept(tx, [c for c in commands if c.event.id not in kept]))
        return [Accepted(c.event.id, False) if c.event.id in kept else next(others) for c in commands]


class AcceptMany(Command[list[Accepted]], frozen=True):
    """Several events, all or nothing."""

    wakes = True

    accepts: tuple[Accept, ...]

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[AcceptMany]) -> list[list[Accepted]]:
        flat = [accept for command in commands for accept in command.accepts]
        results = iter(Accept.execute(tx, flat))
        return [[next(results) for _ in command.accepts] for command in commands]


class Quarantine(Command[None], frozen=True):
    """Keep a request that failed verification, and why."""

    request: RequestRecord
    reason: str

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[Quarantine]) -> list[None]:
        rows = [(*_request_row(c.request), "quarantined", c.reason, None) for c in commands]
        tx.insert_new("requests", REQUEST_COLUMNS, rows)
        return [None] * len(commands)


class Release(Command[Accepted | None], frozen=True):
    """Accept a quarantined request after all, as what its event became; None when it is not there, or not quarantined."""

    wakes = True

    event: EventRecord
    deliveries: tuple[NewDelivery, ...]
    request_id: str
    secret_index: int | None
    now: Micros

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[Release]) -> list[Accepted | None]:
        return [_release(tx, command) for command in commands]


def _release(tx: Transaction, c: Release) -> Accepted | None:
    # An update, to lock it: two gateways may be asked at once.
    if not tx.rows("update requests set status = status where id = ? and status = 'quarantined' returning id", [c.request_id]):
        return None
    [accepted] = Accept.execute(tx, [Accept(c.event, c.deliveries, now=c.now)])
    status = "duplicate" if accepted.duplicate else "accepted"
    row = (c.request_id, status, None, accepted.event_id, c.secret_index)
    tx.write("requests", ("id",), ("status", "reason", "event_id", "secret_index"), [row])
    return accepted


class Judge(Command[None], frozen=True):
    """Why a quarantined request is refused today."""

    request_id: str
    reason: str

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[Judge]) -> list[None]:
        for c in commands:
            tx.rows("update requests set reason = ? where id = ? and status = 'quarantined'", [c.reason, c.request_id])
        return [None] * len(commands)


class Discard(Command[bool], frozen=True):
    """Remove a quarantined request; False when it is not there, or not quarantined."""

    request_id: str

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[Discard]) -> list[bool]:
        sql = "delete from requests where id = ? and status = 'quarantined' returning id"
        return [bool(tx.rows(sql, [command.request_id])) for command in commands]


# In the order of the records' fields.
REQUEST_COLUMNS = (
    "id", "source", "received_at", "method", "url", "headers", "body", "secret_index", "status", "reason", "event_id",
)  # fmt: skip
EVENT_COLUMNS = (
    "id", "name", "source", "key", "occurred_at", "received_at", "attributes", "request_id", "data_path", "data", "traceparent",
)  # fmt: skip
DELIVERY_COLUMNS = ("event_id", "function_id", "replay_id", "run_id", "skip_reason")
RUN_COLUMNS = ("id", "event_id", "function_id", "created_at", "attempts")
CHILD_COLUMNS = (*RUN_COLUMNS, "parent_id", "parent_key")
QUEUE_COLUMNS = ("run_id", "function_id", "due_at", "priority", "held", "attempt", "max_attempts", "fence")


def key_hash(source: str, key: str) -> bytes:
    """16 bytes for a (source, key); a source's name has no NUL."""
    return hashlib.blake2b(f"{source}\0{key}".encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES).digest()


def kept_key(source: str, key: str) -> bytes:
    """What a (source, key) is kept as: how the key begins, and the hash.

    The ids of many third parties begin with a time or a number that grows, as Stripe's do, so that new ones come to stand side by side.
    By hashes alone each would change a page of its own of the index, which is what most of a commit then consists of, and with many
    millions of keys that page has to be read first.
    """
    return key[:16].encode("utf-8", "surrogatepass") + key_hash(source, key)


def deliver(tx: Transaction, new: Sequence[Delivery], at: dict[str, Micros]) -> None:
    """Make deliveries, runs and queue rows for (event id, replay id, delivery); `at` is when each event's runs are due."""
    new = _with_keys(tx, new, at)
    tx.insert("deliveries", DELIVERY_COLUMNS, [(e, d.function_id, replay, d.run_id, d.skip_reason) for e, replay, d in new])
    runs = [(e, d) for e, _, d in new if d.run_id is not None]
    tx.insert("runs", RUN_COLUMNS, [(d.run_id, e, d.function_id, at[e], 0) for e, d in runs if d.parent_id is None])
    children = [(d.run_id, e, d.function_id, at[e], 0, d.parent_id, d.parent_key) for e, d in runs if d.parent_id is not None]
    if children:
        tx.insert("runs", CHILD_COLUMNS, children)
    queued = [(d.run_id, d.queued_as or d.function_id, at[e], 0, d.held, 0, d.max_attempts, 0) for e, d in runs]
    tx.insert("queue", QUEUE_COLUMNS, queued)
    cancels = [(d.run_id, f"cancel {n}", wait) for _, d in runs for n, wait in enumerate(d.cancels) if d.run_id is not None]
    if cancels:
        register(tx, cancels)


def _with_keys(
    tx: Transaction, new: Sequence[tuple[str, str, NewDelivery]], at: dict[str, Micros]
) -> Sequence[tuple[str, str, NewDelivery]]:
    """The deliveries, without a run where another one has the function's idempotency key."""
    if not any(d.once for _, _, d in new):
        return new
    kept: list[Delivery] = []
    for event_id, replay_id, d in new:
        if d.once is not None and not _take_key(tx, d.once, d.run_id, at[event_id]):
            d = NewDelivery(d.function_id, 0, None, "idempotent")
        kept.append((event_id, replay_id, d))
    return kept


def _take_key(tx: Transaction, once: Once, run_id: str | None, now: Micros) -> bool:
    return bool(
        tx.rows(
            "insert into run_keys (key_hash, run_id, until) values (?, ?, ?)"
            " on conflict (key_hash) do update set run_id = excluded.run_id, until = excluded.until"
            " where run_keys.until <= ? or run_keys.run_id = excluded.run_id returning run_id",
            [once.key_hash, run_id, once.until, now],
        )
    )


def _accept(tx: Transaction, commands: Sequence[Accept]) -> list[Accepted]:
    if not commands:
        return []
    keys = [kept_key(command.event.source, command.event.key) for command in commands]
    owners, clash = _claim_keys(tx, keys, commands)
    firsts = [c for c, key in zip(commands, keys, strict=True) if owners[key] == c.event.id]
    later = [(c, owners[key]) for c, key in zip(commands, keys, strict=True) if owners[key] != c.event.id]
    _insert_firsts(tx, _not_there(tx, firsts) if clash else firsts)
    duplicates = [(*_request_row(c.request), "duplicate", None, owner) for c, owner in later if c.request is not None]
    if duplicates:
        tx.insert_new("requests", REQUEST_COLUMNS, duplicates)
    return [Accepted(owners[key], owners[key] != c.event.id) for c, key in zip(commands, keys, strict=True)]


def _claim_keys(tx: Transaction, keys: list[bytes], commands: Sequence[Accept]) -> tuple[dict[bytes, str], bool]:
    """The event id that owns each key, and whether one of them was taken before this group."""
    owners: dict[bytes, str] = {}
    for key, command in zip(keys, commands, strict=True):
        owners.setdefault(key, command.event.id)
    before = _known_by_hash(tx, list(owners))
    owners |= before
    at = commands[0].now or commands[0].event.received_at
    new = tx.insert_new("idempotency_keys", ("key", "event_id", "created_at"), [(key, e, at) for key, e in owners.items()])
    if new == len(owners):
        return owners, bool(before)
    condition, parameters = tx.any_of("key", list(owners))
    return dict(tx.rows(f"select key, event_id from idempotency_keys where {condition}", parameters)), True


def _known_by_hash(tx: Transaction, keys: list[bytes]) -> dict[bytes, str]:
    """Which of these keys were taken before schema 0007, and by which events."""
    if not tx.rows("select 1 from idempotency_hashes limit 1"):
        return {}
    of_hash = {key[-HASH_BYTES:]: key for key in keys}
    condition, parameters = tx.any_of("key_hash", list(of_hash))
    return {of_hash[h]: e for h, e in tx.rows(f"select key_hash, event_id from idempotency_hashes where {condition}", parameters)}


def _not_there(tx: Transaction, commands: Sequence[Accept]) -> list[Accept]:
    """Without those that an earlier try has committed, when only its answer got lost."""
    condition, parameters = tx.any_of("id", [c.event.id for c in commands])
    there = {row[0] for row in tx.rows(f"select id from events where {condition}", parameters)}
    return [c for c in commands if c.event.id not in there]


def _insert_firsts(tx: Transaction, firsts: Sequence[Accept]) -> None:
    requests = [(*_request_row(c.request), "accepted", None, c.event.id) for c in firsts if c.request is not None]
    tx.insert("requests", REQUEST_COLUMNS, requests)
    tx.insert("events", EVENT_COLUMNS, [_event_row(c.event) for c in firsts])
    keep_arrivals(tx, [(c.event.id, c.event.name, partial(_variables, c)) for c in firsts])
    at = {c.event.id: c.now or c.event.received_at for c in firsts}
    deliver(tx, [(c.event.id, "", delivery) for c in firsts for delivery in c.deliveries], at)


def _variables(c: Accept) -> dict[str, Any]:
    """What waits may ask of an event; of one that cannot be read nothing but its name."""
    try:
        body = c.event.data if c.event.data is not None else codec.member(c.request.body if c.request else b"", c.event.data_path)
        return {"name": c.event.name, "data": codec.loads(body)}
    except ValueError:
        return {"name": c.event.name, "data": None}


def _are_plain(deliveries: Sequence[NewDelivery]) -> bool:
    """Whether nothing but deliveries, runs and queue rows come of these."""
    return all(d.once is None and not d.cancels and d.parent_id is None for d in deliveries)


def _webhook_row(e: EventRecord, r: RequestRecord) -> Row:
    """In the order of `accepting.WEBHOOK_COLUMNS`."""
    return (
        e.id, e.received_at, r.id, r.source, r.method, r.url, r.headers, r.body, r.secret_index, e.name, e.key,
        kept_key(e.source, e.key), e.occurred_at, e.attributes, e.data_path, e.data, e.traceparent,
    )  # fmt: skip


def _delivery_row(e: EventRecord, d: NewDelivery) -> Row:
    """In the order of `accepting.DELIVERY_COLUMNS`."""
    return (e.id, e.received_at, d.function_id, d.run_id, d.skip_reason, d.queued_as or d.function_id, d.held, d.max_attempts)


def _event_row(e: EventRecord) -> tuple[object, ...]:
    return msgspec.structs.astuple(e)


def _request_row(r: RequestRecord) -> tuple[object, ...]:
    return msgspec.structs.astuple(r)
