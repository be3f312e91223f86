"""`/runs` and `/deliveries`: read, attempts, logs, cancel, retry."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

import msgspec
from litestar import Request, Response, get, post
from litestar.params import Parameter

from gateway import codec
from gateway.api import describe, present, schemas
from gateway.api.deps import Deps, authorise, may
from gateway.api.filters import (
    Cursor,
    DeliveryStatuses,
    Limit,
    Many,
    Query,
    RunStatuses,
    Since,
    Until,
    between,
    filters,
    several,
    with_status,
)
from gateway.errors import Conflict, InvalidRequest
from gateway.store.admin import CancelRun, RetryRun
from gateway.store.reads import DELIVERY_STATUS, RUN_STATUS

Call = Request[Any, Any, Any]
Include = Annotated[
    list[Literal["attempts", "payload"]] | None, several("Show the ended attempts too, or the output.", "attempts", "payload")
]
Level = Literal["debug", "info", "warning", "error", "critical"]
Levels = Annotated[list[Level] | None, several("Only lines of these levels.", *get_args(Level))]
LogLimit = Annotated[int, Parameter(ge=1, le=1000, description="How many, at most 1,000.")]


def _query(limit: int, cursor: str | None, given: dict[str, Any]) -> Query:
    columns = {"r.function_id": given["function"], "e.name": given["event"], "r.event_id": given["event_id"]}
    query = with_status(filters(limit, cursor, columns), given["status"], RUN_STATUS)
    return between(query, "r.id", "run", given["since"], given["until"])


@get("/runs", tags=["runs"], responses=describe.answers(schemas.RunPage))
async def list_runs(
    deps: Deps,
    request: Call,
    limit: Limit = 50,
    cursor: Cursor = None,
    status: RunStatuses = None,
    function: Many = None,
    event: Many = None,
    event_id: Many = None,
    since: Since = None,
    until: Until = None,
    include: Include = None,
) -> Response[bytes]:
    """Runs, newest first. `event` takes event names.

    `include=attempts` shows the ended attempts of each, `include=payload` what each returned, to keys with `payload:read`.
    """
    given = {"status": status, "function": function, "event": event, "event_id": event_id, "since": since, "until": until}
    query, wanted = _query(limit, cursor, given), include or []
    if "payload" in wanted:
        authorise(request, "payload:read")
    found = await asyncio.to_thread(deps.reads.runs, query)
    attempts = await attempts_of(deps, [row["id"] for row in found.rows]) if "attempts" in wanted else {}

    def shown(row: present.Record) -> schemas.Run:
        run = present.run(row)
        if "payload" in wanted:
            run.output = present.stored(row["output"])
        if "attempts" in wanted:
            run.attempt_list = attempts[row["id"]]
        return run

    return present.page(found, schemas.RunPage, shown)


async def attempts_of(deps: Deps, run_ids: Sequence[str]) -> dict[str, list[schemas.Attempt]]:
    """The ended attempts of each of some runs, in order."""
    attempts: dict[str, list[schemas.Attempt]] = {id_: [] for id_ in run_ids}
    for row in await asyncio.to_thread(deps.reads.attempts, run_ids):
        attempts[row["run_id"]].append(present.attempt(row))
    return attempts


@get("/runs/count", tags=["runs"], responses=describe.answers(schemas.Count))
async def count_runs(
    deps: Deps,
    status: RunStatuses = None,
    function: Many = None,
    event: Many = None,
    event_id: Many = None,
    since: Since = None,
    until: Until = None,
) -> Response[bytes]:
    """How many runs there are, up to 10,000."""
    given = {"status": status, "function": function, "event": event, "event_id": event_id, "since": since, "until": until}
    count, capped = await asyncio.to_thread(deps.reads.count, "runs", _query(1, None, given))
    return present.json(schemas.Count(count, capped))


@get("/runs/{run_id:str}", tags=["runs"], responses=describe.answers(schemas.Run, 404))
async def get_run(deps: Deps, request: Call, run_id: str) -> Response[bytes]:
    """One run; for a key with `payload:read` with its output."""
    row = await asyncio.to_thread(deps.reads.run, run_id)
    run = present.run(row)
    if may(request, "payload:read"):
        run.output = present.stored(row["output"])
    return present.json(run)


@get("/runs/{run_id:str}/attempts", tags=["runs"], responses=describe.answers(schemas.AttemptList, 404))
async def list_run_attempts(deps: Deps, run_id: str) -> Response[bytes]:
    """A run's ended attempts, in order."""
    await asyncio.to_thread(deps.reads.run, run_id)
    return present.json(schemas.AttemptList((await attempts_of(deps, [run_id]))[run_id]))


@get("/runs/{run_id:str}/logs", tags=["runs"], responses=describe.answers(schemas.LogPage, 404))
async def list_run_logs(deps: Deps, run_id: str, limit: LogLimit = 200, cursor: Cursor = None, level: Levels = None) -> Response[bytes]:
    """What a run has logged, in the order it was said; lines appear within a second or two."""
    await asyncio.to_thread(deps.reads.run, run_id)
    rows = await asyncio.to_thread(deps.reads.logs, run_id, _read_cursor(cursor), limit, level or ())
    last = _cursor(rows[-1]) if len(rows) == limit else None
    return present.json(schemas.LogPage([present.log_line(row) for row in rows], last))


@post(
    "/runs/{run_id:str}/cancel",
    tags=["runs"],
    opt={"scope": "replay"},
    status_code=200,
    responses=describe.answers(schemas.Run, 404, 409, 422),
)
async def cancel_run(deps: Deps, request: Call, run_id: str) -> Response[bytes]:
    """Cancel a run that is not final; a worker that runs it is told at its next heartbeat."""
    row = await asyncio.to_thread(deps.reads.run, run_id)
    if not await deps.journal.commit(CancelRun(run_id, deps.clock())):
        raise Conflict(f"The run is {row['status']}; only a run that is not final can be cancelled.")
    return await get_run.fn(deps, request, run_id)


@post(
    "/runs/{run_id:str}/retry",
    tags=["runs"],
    opt={"scope": "replay"},
    status_code=200,
    responses=describe.answers(schemas.Run, 404, 409, 422),
)
async def retry_run(deps: Deps, request: Call, run_id: str) -> Response[bytes]:
    """Queue a failed or cancelled run again, with all its attempts."""
    row = await asyncio.to_thread(deps.reads.run, run_id)
    spec = deps.live.fanout.specs.get(row["function_id"])
    if spec is None:
        raise Conflict(f"Nobody offers the function {row['function_id']!r} any more.")
    if not await deps.journal.commit(RetryRun(run_id, spec.attempts, deps.clock(), spec.queued_as)):
        raise Conflict(f"The run is {row['status']}; only a failed or cancelled run can be retried.")
    return await get_run.fn(deps, request, run_id)


def _deliveries(limit: int, cursor: str | None, given: dict[str, Any]) -> Query:
    columns = {"d.function_id": given["function"], "e.name": given["event"], "d.event_id": given["event_id"], "e.source": given["source"]}
    query = with_status(filters(limit, cursor, columns), given["status"], DELIVERY_STATUS)
    return between(query, "d.event_id", "evt", given["since"], given["until"])


@get("/deliveries", tags=["runs"], responses=describe.answers(schemas.DeliveryPage))
async def list_deliveries(
    deps: Deps,
    limit: Limit = 50,
    cursor: Cursor = None,
    status: DeliveryStatuses = None,
    function: Many = None,
    event: Many = None,
    event_id: Many = None,
    source: Many = None,
    since: Since = None,
    until: Until = None,
) -> Response[bytes]:
    """What became of every event for every function, newest event first. `event` takes event names."""
    given = {"status": status, "function": function, "event": event, "event_id": event_id, "source": source}
    query = _deliveries(limit, cursor, {**given, "since": since, "until": until})
    return present.page(await asyncio.to_thread(deps.reads.all_deliveries, query), schemas.DeliveryPage, present.delivery)


@get("/deliveries/count", tags=["runs"], responses=describe.answers(schemas.Count))
async def count_deliveries(
    deps: Deps,
    status: DeliveryStatuses = None,
    function: Many = None,
    event: Many = None,
    event_id: Many = None,
    source: Many = None,
    since: Since = None,
    until: Until = None,
) -> Response[bytes]:
    """How many deliveries there are, up to 10,000."""
    given = {"status": status, "function": function, "event": event, "event_id": event_id, "source": source}
    query = _deliveries(1, None, {**given, "since": since, "until": until})
    count, capped = await asyncio.to_thread(deps.reads.count, "deliveries", query)
    return present.json(schemas.Count(count, capped))


def _cursor(row: present.Record) -> str:
    return base64.urlsafe_b64encode(codec.dumps([row["fence"], row["n"]])).decode().rstrip("=")


def _read_cursor(cursor: str | None) -> tuple[int, int]:
    if cursor is None:
        return 0, 0
    try:
        fence, n = msgspec.json.decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=tuple[int, int])
    except ValueError:
        fence = n = -1
    if not (0 <= fence < 1 << 31 and 0 <= n < 1 << 31):
        raise InvalidRequest("This cursor is not one of ours; start again without it.", code="invalid_cursor")
    return fence, n
