"""What happened, as queries: keyset pages, newest first, and single rows. API, pages and CLI share them."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from gateway import codec
from gateway.core.spec import Manifest, merged
from gateway.core.states import WAITING
from gateway.errors import InvalidRequest, NotFound
from gateway.store.database import Database
from gateway.store.offers import decode_manifest

Record = Mapping[str, Any]
COUNT_CAP = 10_000

_PARKED = ", ".join(f"'{reason}'" for reason in WAITING)
STATUS = (
    f"coalesce(r.outcome, case when q.worker_id is not null then 'running' when q.reason in ({_PARKED}) then 'waiting' else 'queued' end)"
)
RUNS = (
    "select r.id, r.event_id, r.function_id, r.created_at, r.finished_at, r.output, r.error,"
    " coalesce(r.started_at, q.first_started_at) as started_at, coalesce(q.attempt, r.attempts) as attempts,"
    f" {STATUS} as status, q.reason, q.worker_id, q.held, q.due_at, q.function_id as queued_as, e.name as event_name, p.paused_at,"
    " r.parent_id, g.done, g.total, g.message, g.at"
    " from runs r left join queue q on q.run_id = r.id left join pauses p on p.function_id = r.function_id"
    " left join progress g on g.run_id = r.id join events e on e.id = r.event_id"
)
EVENTS = "select e.id, e.name, e.source, e.key, e.occurred_at, e.received_at, e.request_id, e.attributes, e.traceparent from events e"
REQUESTS = (
    "select q.id, q.source, q.received_at, q.status, q.reason, q.secret_index, q.event_id, q.method, q.url, q.headers,"
    " length(q.body) as body_bytes from requests q"
)
DELIVERIES = (
    "select d.event_id, d.function_id, d.replay_id, d.run_id, d.skip_reason, r.error, coalesce(q.attempt, r.attempts, 0) as attempts,"
    f" q.due_at, case when d.run_id is null then 'skipped' else {STATUS} end as status"
    " from deliveries d join events e on e.id = d.event_id left join runs r on r.id = d.run_id left join queue q on q.run_id = d.run_id"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One page of a list: `conditions` are SQL over the list's own columns, with their parameters."""

    limit: int = 50
    cursor: str | None = None
    conditions: Sequence[str] = ()
    parameters: Sequence[Any] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """Rows newest first, and the cursors to go on from."""

    rows: Sequence[Record]
    next_cursor: str | None
    prev_cursor: str | None
    has_more: bool = field(default=False)


def one_of(column: str, values: Sequence[str]) -> tuple[str, list[Any]]:
    """A condition for a repeated filter: exact values, or wildcards with `*`; the parameters go with it."""
    parts: list[str] = []
    parameters: list[Any] = []
    for value in values:
        if "*" in value:
            parts.append(f"{column} like ? escape '~'")
            for special in "~%_":
                value = value.replace(special, "~" + special)
            parameters.append(value.replace("*", "%"))
        else:
            parts.append(f"{column} = ?")
            parameters.append(value)
    return "(" + " or ".join(parts) + ")", parameters


# Conditions for a status, with literals: a partial index is only used where its values stand in the statement.
RUN_STATUS: Mapping[str, str] = {
    "queued": f"r.id in (select run_id from queue where worker_id is null and (reason is null or reason not in ({_PARKED})))",
    "running": "r.id in (select run_id from queue where worker_id is not null)",
    "waiting": f"r.id in (select run_id from queue where worker_id is null and reason in ({_PARKED}))",
    "succeeded": "r.outcome = 'succeeded'",
    "failed": "r.outcome = 'failed'",
    "cancelled": "r.outcome = 'cancelled'",
}
DELIVERY_STATUS: Mapping[str, str] = {**RUN_STATUS, "skipped": "d.run_id is null"}
REQUEST_STATUS: Mapping[str, str] = {
    "accepted": "q.status = 'accepted'",
    "duplicate": "q.status <> 'accepted' and q.status = 'duplicate'",
    "quarantined": "q.status <> 'accepted' and q.status = 'quarantined'",
}


class Reads:
    """Queries over one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def events(self, query: Query) -> Page:
        """A page of events."""
        return self._page(EVENTS, {"id": "e.id"}, query)

    def requests(self, query: Query) -> Page:
        """A page of requests, without their bytes."""
        return self._page(REQUESTS, {"id": "q.id"}, query)

    def runs(self, query: Query) -> Page:
        """A page of runs."""
        return self._page(RUNS, {"id": "r.id"}, query)

    def all_deliveries(self, query: Query) -> Page:
        """A page of deliveries of all events."""
        key = {"event_id": "d.event_id", "function_id": "d.function_id", "replay_id": "d.replay_id"}
        return self._page(DELIVERIES, key, query)

    def count(self, what: str, query: Query) -> tuple[int, bool]:
        """How many rows match, and whether the count stopped at COUNT_CAP."""
        base = {"events": EVENTS, "requests": REQUESTS, "runs": RUNS, "deliveries": DELIVERIES}[what]
        where = " where " + " and ".join(query.conditions) if query.conditions else ""
        sql = f"select count(*) as n from ({base}{where} limit {COUNT_CAP + 1}) t"
        n = self._database.read(sql, query.parameters)[0]["n"]
        return min(n, COUNT_CAP), n > COUNT_CAP

    def event(self, event_id: str) -> Record:
        """One event. Raises NotFound."""
        return self._one(f"{EVENTS} where e.id = ?", event_id, "event")

    def event_data(self, event_ids: Sequence[str]) -> Mapping[str, bytes]:
        """The exact bytes of the data of each of some events; none where it cannot be read, or has been erased."""
        if not event_ids:
            return {}
        rows = self._database.read(
            "select e.id, e.data_path, coalesce(e.data, q.body) as body from events e left join requests q on q.id = e.request_id"
            f" where e.id in ({', '.join('?' * len(event_ids))})",
            event_ids,
        )
        found: dict[str, bytes] = {}
        for row in rows:
            with contextlib.suppress(ValueError):
                found[row["id"]] = codec.member(bytes(row["body"] or b""), row["data_path"])
        return found

    def deliveries(self, event_id: str) -> Sequence[Record]:
        """What became of an event, for each function, in the order it happened."""
        return self._database.read(f"{DELIVERIES} where d.event_id = ? order by d.replay_id, d.function_id", [event_id])

    def request(self, request_id: str) -> Record:
        """One request, without its body. Raises NotFound."""
        return self._one(f"{REQUESTS} where q.id = ?", request_id, "request")

    def request_body(self, request_id: str) -> bytes:
        """The exact bytes that arrived. Raises NotFound."""
        return bytes(self._one("select body from requests where id = ?", request_id, "request")["body"])

    def run(self, run_id: str) -> Record:
        """One run. Raises NotFound."""
        return self._one(f"{RUNS} where r.id = ?", run_id, "run")

    def attempts(self, run_ids: Sequence[str]) -> Sequence[Record]:
        """The ended attempts of some runs, in order."""
        if not run_ids:
            return []
        places = ", ".join("?" * len(run_ids))
        return self._database.read(f"select * from attempts where run_id in ({places}) order by run_id, fence", run_ids)

    def steps(self, run_id: str) -> Sequence[Record]:
        """What a run remembers, in the order it began."""
        return self._database.read("select * from steps where run_id = ? order by position, key", [run_id])

    def step_attempts(self, run_id: str) -> Mapping[str, Sequence[Record]]:
        """The failed tries at each step of a run, in order."""
        found: dict[str, list[Record]] = {}
        for row in self._database.read("select * from step_attempts where run_id = ? order by key, fence", [run_id]):
            found.setdefault(row["key"], []).append(row)
        return found

    def logs(self, run_id: str, after: tuple[int, int], limit: int, levels: Sequence[str] = ()) -> Sequence[Record]:
        """Lines of a run in the order they were said, from behind (fence, n); of any level, or of some."""
        of_levels = f" and level in ({', '.join('?' * len(levels))})" if levels else ""
        return self._database.read(
            "select fence, n, attempt, step, at, level, message from run_logs where run_id = ? and (fence > ? or fence = ? and n > ?)"
            f"{of_levels} order by fence, n limit ?",
            [run_id, after[0], *after, *levels, limit],
        )

    def apps(self) -> Mapping[str, Manifest]:
        """By app, all that is offered now."""
        rows = self._database.read("select app, manifest from manifests order by published_at, id")
        return merged((row["app"], decode_manifest(bytes(row["manifest"]))) for row in rows)

    def pauses(self) -> Mapping[str, int]:
        """The functions that are paused, and since when."""
        rows = self._database.read("select function_id, paused_at from pauses")
        return {row["function_id"]: row["paused_at"] for row in rows}

    def event_names(self) -> Sequence[str]:
        """Every event name that has arrived, by steps over the index from one to the next."""
        rows = self._database.read(
            "with recursive names(name) as (select min(name) from events union all"
            " select (select min(e.name) from events e where e.name > names.name) from names where names.name is not null)"
            f" select name from names where name is not null limit {COUNT_CAP}"
        )
        return [row["name"] for row in rows]

    def sources(self) -> Sequence[Record]:
        """Every source, secrets still encrypted."""
        return self._database.read("select * from sources order by name")

    def secret_uses(self) -> Mapping[tuple[str, int], int]:
        """When each secret, as (source id, number), was last used."""
        rows = self._database.read("select source_id, n, last_used_at from secret_uses")
        return {(row["source_id"], row["n"]): row["last_used_at"] for row in rows}

    def api_keys(self) -> Sequence[Record]:
        """Every API key that was not revoked."""
        return self._database.read("select * from api_keys where scopes <> '' order by id")

    def backlog(self, now: int) -> Record:
        """How many runs are due (up to COUNT_CAP), when the oldest was, and how many nobody can run."""
        due = "from queue where held = 0 and due_at <= ? and worker_id is null"
        return self._database.read(
            f"select (select count(*) from (select 1 as one {due} limit {COUNT_CAP}) a) as due,"
            f" (select due_at {due} order by due_at limit 1) as oldest_due_at,"
            f" (select count(*) from (select 1 as one from queue where held > 0 and held = 1 limit {COUNT_CAP}) c) as held,"
            f" (select count(*) from (select 1 as one from queue where held > 0 and held = 2 limit {COUNT_CAP}) d) as paused",
            [now, now],
        )[0]

    def homeless(self) -> Sequence[Record]:
        """What the runs are queued as that nobody can run: how many of the first COUNT_CAP, and the oldest of each."""
        held = f"select function_id, run_id from queue where held > 0 and held = 1 limit {COUNT_CAP}"
        return self._database.read(
            f"select function_id, count(*) as n, min(run_id) as run_id from ({held}) t group by function_id order by function_id"
        )

    def backlog_by_function(self, now: int) -> Sequence[Record]:
        """How many of the COUNT_CAP runs that have been due longest wait for each function, and since when."""
        due = "select function_id, due_at from queue where held = 0 and due_at <= ? and worker_id is null order by due_at"
        return self._database.read(
            f"select function_id, count(*) as due, min(due_at) as oldest_due_at from ({due} limit {COUNT_CAP}) t group by function_id",
            [now],
        )

    def processes(self, now: int) -> Sequence[Record]:
        """The gateways and workers whose lease runs."""
        return self._database.read("select * from processes where lease_until >= ? order by kind, id", [now])

    def totals(self) -> Sequence[Record]:
        """Every count since the beginning."""
        return self._database.read("select * from stats where minute = 0 order by kind, subject, outcome")

    def _one(self, sql: str, id_: str, noun: str) -> Record:
        rows = [] if "\0" in id_ else self._database.read(sql, [id_])
        if not rows:
            raise NotFound(f"There is no {noun} with the id {id_!r}.")
        return rows[0]

    def _page(self, base: str, key: Mapping[str, str], query: Query) -> Page:
        """A page in the order of `key`: name in the row -> column."""
        conditions, parameters = list(query.conditions), list(query.parameters)
        direction, after = _read_cursor(query.cursor, len(key))
        columns = ", ".join(key.values())
        if after:
            conditions.append(f"({columns}) {'<' if direction == 'next' else '>'} ({', '.join('?' * len(key))})")
            parameters += after
        where = " where " + " and ".join(conditions) if conditions else ""
        order = ", ".join(f"{column} {'desc' if direction == 'next' else 'asc'}" for column in key.values())
        rows = list(self._database.read(f"{base}{where} order by {order} limit ?", [*parameters, query.limit + 1]))
        more = len(rows) > query.limit
        rows = rows[: query.limit]
        if direction == "prev":
            rows.reverse()
        older = more if direction == "next" else True
        newer = bool(after) if direction == "next" else more
        return Page(
            rows,
            _cursor("next", [rows[-1][name] for name in key]) if rows and older else None,
            _cursor("prev", [rows[0][name] for name in key]) if rows and newer else None,
            has_more=older and bool(rows),
        )


def _cursor(direction: str, values: Sequence[str]) -> str:
    return base64.urlsafe_b64encode(codec.dumps([direction, *values])).decode().rstrip("=")


def _read_cursor(cursor: str | None, length: int) -> tuple[str, list[str]]:
    if cursor is None:
        return "next", []
    try:
        direction, *values = msgspec.json.decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=list[str])
    except ValueError:
        direction, values = "", []
    if direction not in ("next", "prev") or len(values) != length or any("\0" in value for value in values):
        raise InvalidRequest("This cursor is not one of ours; start again without it.", code="invalid_cursor")
    return direction, values
