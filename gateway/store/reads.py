"""What happened, as queries: keyset pages, newest first, and single rows. API, pages and CLI share them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway import codec
from gateway.errors import InvalidRequest, NotFound
from gateway.store.database import Database

Record = Mapping[str, Any]
COUNT_CAP = 10_000

STATUS = "coalesce(r.outcome, case when q.worker_id is not null then 'running' when q.reason = 'retry' then 'waiting' else 'queued' end)"
RUNS = (
    "select r.id, r.event_id, r.function_id, r.created_at, r.finished_at, r.output, r.error,"
    " coalesce(r.started_at, q.first_started_at) as started_at, coalesce(q.attempt, r.attempts) as attempts,"
    f" {STATUS} as status, q.reason, q.worker_id, q.held, q.due_at, e.name as event_name"
    " from runs r left join queue q on q.run_id = r.id join events e on e.id = r.event_id"
)
EVENTS = "select e.id, e.name, e.source, e.key, e.occurred_at, e.received_at, e.request_id, e.attributes, e.traceparent from events e"
REQUESTS = (
    "select q.id, q.source, q.received_at, q.status, q.reason, q.secret_index, q.event_id, q.method, q.url,"
    " length(q.body) as body_bytes from requests q"
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
    "queued": "r.id in (select run_id from queue where worker_id is null and (reason is null or reason <> 'retry'))",
    "running": "r.id in (select run_id from queue where worker_id is not null)",
    "waiting": "r.id in (select run_id from queue where worker_id is null and reason = 'retry')",
    "succeeded": "r.outcome = 'succeeded'",
    "failed": "r.outcome = 'failed'",
    "cancelled": "r.outcome = 'cancelled'",
}
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
        return self._page(EVENTS, "e.id", query)

    def requests(self, query: Query) -> Page:
        """A page of requests, without their bytes."""
        return self._page(REQUESTS, "q.id", query)

    def runs(self, query: Query) -> Page:
        """A page of runs."""
        return self._page(RUNS, "r.id", query)

    def count(self, what: str, query: Query) -> tuple[int, bool]:
        """How many rows match, and whether the count stopped at COUNT_CAP."""
        base = {"events": EVENTS, "requests": REQUESTS, "runs": RUNS}[what]
        where = " where " + " and ".join(query.conditions) if query.conditions else ""
        sql = f"select count(*) as n from ({base}{where} limit {COUNT_CAP + 1}) t"
        n = self._database.read(sql, query.parameters)[0]["n"]
        return min(n, COUNT_CAP), n > COUNT_CAP

    def event(self, event_id: str) -> Record:
        """One event. Raises NotFound."""
        return self._one(f"{EVENTS} where e.id = ?", event_id, "event")

    def event_data(self, event_id: str) -> bytes:
        """The exact bytes of an event's data. Raises NotFound."""
        row = self._one(
            "select e.data_path, coalesce(e.data, q.body) as body from events e left join requests q on q.id = e.request_id where e.id = ?",
            event_id,
            "event",
        )
        return codec.member(bytes(row["body"]), row["data_path"])

    def deliveries(self, event_id: str) -> Sequence[Record]:
        """What became of an event, for each function, in the order it happened."""
        return self._database.read(
            "select d.function_id, d.replay_id, d.run_id, d.skip_reason, r.created_at, r.finished_at, r.error,"
            f" coalesce(q.attempt, r.attempts, 0) as attempts, q.due_at, q.held,"
            f" case when d.run_id is null then 'skipped' else {STATUS} end as status"
            " from deliveries d left join runs r on r.id = d.run_id left join queue q on q.run_id = d.run_id"
            " where d.event_id = ? order by d.replay_id, d.function_id",
            [event_id],
        )

    def request(self, request_id: str) -> Record:
        """One request, with headers and without its body. Raises NotFound."""
        return self._one(REQUESTS.replace("q.url,", "q.url, q.headers,") + " where q.id = ?", request_id, "request")

    def request_body(self, request_id: str) -> bytes:
        """The exact bytes that arrived. Raises NotFound."""
        return bytes(self._one("select body from requests where id = ?", request_id, "request")["body"])

    def run(self, run_id: str) -> Record:
        """One run. Raises NotFound."""
        return self._one(f"{RUNS} where r.id = ?", run_id, "run")

    def attempts(self, run_ids: Sequence[str]) -> Sequence[Record]:
        """The ended attempts of some runs, in order."""
        places = ", ".join("?" * len(run_ids))
        return self._database.read(f"select * from attempts where run_id in ({places}) order by run_id, fence", run_ids)

    def apps(self) -> Sequence[Record]:
        """Every app with its published specs."""
        return self._database.read("select id, manifest, published_at from apps order by id")

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

    def _one(self, sql: str, id_: str, noun: str) -> Record:
        rows = [] if "\0" in id_ else self._database.read(sql, [id_])
        if not rows:
            raise NotFound(f"There is no {noun} with the id {id_!r}.")
        return rows[0]

    def _page(self, base: str, key: str, query: Query) -> Page:
        conditions, parameters = list(query.conditions), list(query.parameters)
        direction, after = _read_cursor(query.cursor)
        if after:
            conditions.append(f"{key} {'<' if direction == 'next' else '>'} ?")
            parameters.append(after)
        where = " where " + " and ".join(conditions) if conditions else ""
        order = "desc" if direction == "next" else "asc"
        sql = f"{base}{where} order by {key} {order} limit ?"
        rows = list(self._database.read(sql, [*parameters, query.limit + 1]))
        more = len(rows) > query.limit
        rows = rows[: query.limit]
        if direction == "prev":
            rows.reverse()
        older = more if direction == "next" else True
        newer = bool(after) if direction == "next" else more
        return Page(
            rows,
            _cursor("next", rows[-1]["id"]) if rows and older else None,
            _cursor("prev", rows[0]["id"]) if rows and newer else None,
            has_more=older and bool(rows),
        )


def _cursor(direction: str, id_: str) -> str:
    return base64.urlsafe_b64encode(f"{direction}:{id_}".encode()).decode().rstrip("=")


def _read_cursor(cursor: str | None) -> tuple[str, str]:
    if cursor is None:
        return "next", ""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
    except (ValueError, binascii.Error):
        text = ""
    direction, _, id_ = text.partition(":")
    if direction not in ("next", "prev") or not id_ or "\0" in id_:
        raise InvalidRequest("This cursor is not one of ours; start again without it.", code="invalid_cursor")
    return direction, id_
