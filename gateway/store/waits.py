"""Waits, and what ends them. Both sides write, commit, and then look: a wait for what has arrived, and whoever matches
arrivals for what waits. Whoever of them, a signal, a child's end or a timeout deletes the wait's row has ended it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import msgspec

from gateway.clock import Micros
from gateway.core.outcome import Failure
from gateway.core.steps import Condition
from gateway.core.waits import hash_at
from gateway.ids import first_id
from gateway.store.database import Database, Transaction
from gateway.store.journal import Command

WAIT_COLUMNS = ("run_id", "key", "kind", "match_hash", "since", "until", "condition")
LOOK = 200  # arrivals looked at in one go
SCAN = 1000  # rows of a page
BODIES = 32 << 20  # bytes of events that are read in one go

encode_condition = msgspec.json.Encoder().encode
decode_condition = msgspec.json.Decoder(Condition).decode


class Wait(msgspec.Struct, frozen=True):
    """What a step, or what cancels a run, waits for: whatever hashes to `match_hash` after `since`, and for an event the
    condition it must fulfil."""

    kind: str
    match_hash: bytes
    since: Micros
    until: Micros | None
    condition: Condition | None = None


class WaitEnd(msgspec.Struct, frozen=True):
    """What a step waited for has come: its output, or its error. A retried run may wait for something else by the same key."""

    run_id: str
    key: str
    match_hash: bytes
    at: Micros
    output: bytes | None = None
    error: Failure | None = None


class Arrival(msgspec.Struct, frozen=True):
    """An event that something may wait for."""

    match_hash: bytes
    event_id: str


class EndWaits(Command[int], frozen=True):
    """End waits with what has come, and note which arrivals have been looked at; returns how many ended."""

    wakes = True

    ends: tuple[WaitEnd, ...]
    seen: tuple[Arrival, ...] = ()

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[EndWaits]) -> list[int]:
        counts = [len(end_waits(tx, command.ends)) for command in commands]
        seen = [(a.match_hash, a.event_id, 1) for command in commands for a in command.seen]
        if seen:
            tx.write("arrivals", ("match_hash", "event_id"), ("seen",), seen)
        return counts


class SendSignal(Command[int], frozen=True):
    """End every wait for a signal with its data; returns how many there were."""

    wakes = True

    match_hash: bytes
    data: bytes
    now: Micros

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[SendSignal]) -> list[int]:
        counts: list[int] = []
        for c in commands:
            rows = tx.rows("select run_id, key from waits where match_hash = ?", [c.match_hash])
            counts.append(len(end_waits(tx, [WaitEnd(row[0], row[1], c.match_hash, c.now, c.data) for row in rows])))
        return counts


class Horizon(Command[int], frozen=True):
    """Mark paths that were seen before this was asked for; returns up to which mark all transactions have ended.

    A transaction may have begun after the one that wrote a path, and yet not know it. One that begins after this one, which
    has begun after the path was seen, does.
    """

    seen: tuple[tuple[str, str], ...] = ()

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[Horizon]) -> list[int]:
        new = sorted({path for command in commands for path in command.seen})
        if new:
            mark = tx.mark()
            for path in new:
                tx.rows("update wait_paths set mark = ? where name = ? and path = ? and mark = 0 returning name", [mark, *path])
        return [tx.horizon()] * len(commands)


class Settle(Command[None], frozen=True):
    """Keep as arrivals what older transactions have committed without knowing of a path, and take the path as known by all."""

    wakes = True

    name: str
    path: str
    arrivals: tuple[Arrival, ...]

    @classmethod
    def execute(cls, tx: Transaction, commands: Sequence[Settle]) -> list[None]:
        for c in commands:
            tx.insert_new("arrivals", ("match_hash", "event_id", "seen"), [(a.match_hash, a.event_id, 0) for a in c.arrivals])
            tx.write("wait_paths", ("name", "path"), ("settled",), [(c.name, c.path, 1)])
        return [None] * len(commands)


def end_waits(tx: Transaction, ends: Sequence[WaitEnd]) -> set[tuple[str, str]]:
    """End these waits, unless somebody else has, and make their runs due; returns (run, key) of those that ended."""
    if not ends:
        return set()
    # First the runs, as whoever parks, ends or cancels one does: none is parked for a wait that is ended at the same time.
    lock_queue(tx, {end.run_id for end in ends})
    ended: list[WaitEnd] = []
    for end in ends:
        sql = "delete from waits where run_id = ? and key = ? and match_hash = ? returning key"
        if tx.rows(sql, [end.run_id, end.key, end.match_hash]):
            ended.append(end)
    rows = [
        (e.run_id, e.key, "succeeded" if e.error is None else "failed", e.at, e.output, msgspec.json.encode(e.error) if e.error else None)
        for e in ended
    ]
    if rows:
        tx.write("steps", ("run_id", "key"), ("status", "finished_at", "output", "error"), rows)
    for end in ended:
        tx.rows("update queue set due_at = ?, reason = null where run_id = ? and worker_id is null returning run_id", [end.at, end.run_id])
    return {(end.run_id, end.key) for end in ended}


def lock_queue(tx: Transaction, run_ids: Collection[str]) -> list[tuple[str, int]]:
    """(run, fence) of those of some runs that are live; until this transaction ends nobody else changes their queue rows.

    Whoever touches the waits or steps of runs does this first, and in one order: two of them never wait for each other.
    """
    if not run_ids:
        return []
    condition, ids = tx.any_of("run_id", sorted(run_ids))
    return [(row[0], row[1]) for row in tx.rows(f"select run_id, fence from queue where {condition} order by run_id{tx.for_update()}", ids)]


def register(tx: Transaction, waits: Sequence[tuple[str, str, Wait]]) -> None:
    """Keep waits, as (run, key, wait), and by what they wait."""
    if not waits:
        return
    rows = [
        (run_id, key, w.kind, w.match_hash, w.since, w.until, encode_condition(w.condition) if w.condition else None)
        for run_id, key, w in waits
    ]
    tx.insert_new("waits", WAIT_COLUMNS, rows)
    keep_paths(tx, {(w.condition.name, w.condition.path): w.since for _, _, w in waits if w.condition is not None})


def keep_paths(tx: Transaction, paths: Mapping[tuple[str, str], Micros]) -> None:
    """Remember by which (event name, path) something waits, and since when: from now on such events are kept as arrivals."""
    if not paths:
        return
    known = {(row[0], row[1]) for row in tx.rows("select name, path from wait_paths")}
    new = [(*path, at, 0, 0) for path, at in sorted(paths.items()) if path not in known]
    if new:
        tx.insert_new("wait_paths", ("name", "path", "created_at", "mark", "settled"), new)


def keep_arrivals(tx: Transaction, events: Iterable[tuple[str, str, Callable[[], Mapping[str, Any]]]]) -> None:
    """Keep what something may wait for among new events, given as (id, name, variables)."""
    paths: dict[str, list[str]] = {}
    for name, path in tx.rows("select name, path from wait_paths"):
        paths.setdefault(name, []).append(path)
    if not paths:
        return
    rows: list[tuple[bytes, str, int]] = []
    for event_id, name, variables in events:
        if name in paths:
            rows += [(found, event_id, 0) for path in paths[name] if (found := hash_at(variables(), path)) is not None]
    if rows:
        tx.insert_new("arrivals", ("match_hash", "event_id", "seen"), rows)


class Lookups:
    """What matching asks the database, in snapshots of its own: after the commit of whoever asks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def todo(self) -> Mapping[str, Any]:
        """Whether there are arrivals to be looked at, endings to be told, paths to be settled."""
        return self._database.read(
            "select exists(select 1 from arrivals where seen = 0) as arrivals, exists(select 1 from endings) as endings,"
            " exists(select 1 from wait_paths where settled = 0) as paths"
        )[0]

    def unseen(self) -> list[Arrival]:
        """Arrivals that have not been looked at, oldest first."""
        rows = self._database.read(f"select match_hash, event_id from arrivals where seen = 0 order by event_id limit {LOOK}")
        return [Arrival(bytes(row["match_hash"]), row["event_id"]) for row in rows]

    def waiting(self, hashes: Sequence[bytes]) -> Iterator[Mapping[str, Any]]:
        """Waits for these hashes, by (run, key)."""
        if not hashes:
            return
        sql = (
            f"select * from waits where match_hash in ({', '.join('?' * len(hashes))}) and (run_id, key) > (?, ?)"
            f" order by run_id, key limit {SCAN}"
        )
        after = ("", "")
        while rows := self._database.read(sql, [*hashes, *after]):
            yield from rows
            after = (rows[-1]["run_id"], rows[-1]["key"])

    def waits_of(self, run_id: str) -> Sequence[Mapping[str, Any]]:
        """What a run waits for."""
        return self._database.read("select * from waits where run_id = ?", [run_id])

    def arrived(self, match_hash: bytes, since: Micros) -> Iterator[str]:
        """The ids of kept arrivals since a time, oldest first."""
        sql = f"select event_id as id from arrivals where match_hash = ? and event_id > ? order by event_id limit {SCAN}"
        return self._ids(sql, match_hash, since)

    def unkept(self, name: str, path: str, since: Micros) -> Iterator[str]:
        """Events of a name since a time, oldest first, where some came before anything was kept of them for this path."""
        rows = self._database.read("select created_at, settled from wait_paths where name = ? and path = ?", [name, path])
        if rows and rows[0]["settled"] and rows[0]["created_at"] < since:
            return iter(())
        return self.named(name, since)

    def named(self, name: str, since: Micros) -> Iterator[str]:
        """The ids of events of a name since a time, oldest first."""
        return self._ids(f"select id from events where name = ? and id > ? order by id limit {SCAN}", name, since)

    def _ids(self, sql: str, key: Any, since: Micros) -> Iterator[str]:
        after = first_id("evt", since // 1000)
        while rows := self._database.read(sql, [key, after]):
            yield from (row["id"] for row in rows)
            after = rows[-1]["id"]

    def unsettled(self) -> Sequence[Mapping[str, Any]]:
        """Paths that not every transaction knows of yet."""
        return self._database.read("select name, path, created_at, mark from wait_paths where settled = 0")

    def events(self, event_ids: Iterable[str]) -> Iterator[Mapping[str, Any]]:
        """Events with their bodies, in the order given; so many at a time that their bodies fit into memory."""
        ids = iter(event_ids)
        while page := list(islice(ids, 100)):
            sizes = self._read_of("select e.id, length(coalesce(e.data, q.body)) as size", page)
            batch, held = list[str](), 0
            for id_ in page:
                size = sizes[id_]["size"] or 0 if id_ in sizes else 0
                if batch and held + size > BODIES:
                    yield from self._bodies(batch)
                    batch, held = [], 0
                batch.append(id_)
                held += size
            yield from self._bodies(batch)

    def _bodies(self, ids: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        columns = "e.id, e.name, e.source, e.occurred_at, e.received_at, e.attributes, e.data_path, coalesce(e.data, q.body) as body"
        found = self._read_of(f"select {columns}", ids)
        yield from (found[id_] for id_ in ids if id_ in found)

    def _read_of(self, select: str, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        places = ", ".join("?" * len(ids))
        sql = f"{select} from events e left join requests q on q.id = e.request_id where e.id in ({places})"
        return {row["id"]: row for row in self._database.read(sql, ids)}
