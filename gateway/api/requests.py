"""`/requests`: what arrived, byte for byte, what became of it, and second chances for what was refused."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Annotated, Any, Literal

from litestar import Request, Response, get, post

from gateway.api import describe, present, schemas
from gateway.api.deps import Deps, authorise, may
from gateway.api.filters import (
    Cursor,
    Limit,
    Many,
    Query,
    RequestStatuses,
    Since,
    Until,
    between,
    filters,
    several,
    with_status,
)
from gateway.errors import Conflict, NotFound
from gateway.store.reads import REQUEST_STATUS

REPROCESS_AT_ONCE = 200

Call = Request[Any, Any, Any]


def _query(limit: int, cursor: str | None, given: dict[str, Any]) -> Query:
    columns = {"q.source": given["source"], "q.reason": given["reason"], "q.event_id": given["event"]}
    query = with_status(filters(limit, cursor, columns), given["status"], REQUEST_STATUS)
    return between(query, "q.id", "req", given["since"], given["until"])


@get("/requests", tags=["requests"], responses=describe.answers(schemas.RequestPage))
async def list_requests(
    deps: Deps,
    request: Call,
    limit: Limit = 50,
    cursor: Cursor = None,
    status: RequestStatuses = None,
    source: Many = None,
    reason: Many = None,
    event: Many = None,
    since: Since = None,
    until: Until = None,
    include: Annotated[list[Literal["headers"]] | None, several("Show the headers too.", "headers")] = None,
) -> Response[bytes]:
    """Inbound requests, newest first. `include=headers` shows their headers too; `event` takes event ids."""
    given = {"status": status, "source": source, "reason": reason, "event": event, "since": since, "until": until}
    query, with_headers = _query(limit, cursor, given), bool(include)
    if with_headers:
        authorise(request, "payload:read")
    found = await asyncio.to_thread(deps.reads.requests, query)
    return present.page(found, schemas.RequestPage, _with_headers if with_headers else present.request)


@get("/requests/count", tags=["requests"], responses=describe.answers(schemas.Count))
async def count_requests(
    deps: Deps,
    status: RequestStatuses = None,
    source: Many = None,
    reason: Many = None,
    event: Many = None,
    since: Since = None,
    until: Until = None,
) -> Response[bytes]:
    """How many requests there are, up to 10,000."""
    given = {"status": status, "source": source, "reason": reason, "event": event, "since": since, "until": until}
    count, capped = await asyncio.to_thread(deps.reads.count, "requests", _query(1, None, given))
    return present.json(schemas.Count(count, capped))


@get("/requests/{request_id:str}", tags=["requests"], responses=describe.answers(schemas.Request, 404))
async def get_request(deps: Deps, request: Call, request_id: str) -> Response[bytes]:
    """One request; for a key with `payload:read` with its headers. Why it was refused is told after a closer look."""
    row = await asyncio.to_thread(deps.reads.request, request_id)
    shown = _with_headers(row) if may(request, "payload:read") else present.request(row)
    if row["status"] == "quarantined":
        body = await asyncio.to_thread(deps.reads.request_body, request_id)
        closer = await asyncio.to_thread(deps.reprocessor.diagnose, row, body)
        shown.diagnosis = " ".join(filter(None, [shown.diagnosis, closer]))
    return present.json(shown)


@get(
    "/requests/{request_id:str}/raw",
    tags=["requests"],
    opt={"scope": "payload:read"},
    responses=describe.raw("application/octet-stream", "The exact bytes that arrived.", 404),
)
async def get_request_raw(deps: Deps, request_id: str) -> Response[bytes]:
    """The exact bytes that arrived."""
    body = await asyncio.to_thread(deps.reads.request_body, request_id)
    headers = {
        "Content-Disposition": f'attachment; filename="{request_id}.bin"',
        "X-Content-Type-Options": "nosniff",
    }
    return Response(body, media_type="application/octet-stream", headers=headers)


@post(
    "/requests/{request_id:str}/reprocess",
    tags=["requests"],
    opt={"scope": "replay"},
    status_code=200,
    responses=describe.answers(schemas.Reprocessed, 404, 409, 422),
)
async def reprocess_request(deps: Deps, request_id: str) -> Response[bytes]:
    """Verify a quarantined request again, judged as of its receipt with today's secrets, and deliver it if it holds."""
    row = await asyncio.to_thread(deps.reads.request, request_id)
    if row["status"] != "quarantined":
        raise Conflict(f"The request is {row['status']}; only a quarantined one can be verified again.")
    return present.json(await _again(deps, row))


@post(
    "/requests/reprocess",
    tags=["requests"],
    opt={"scope": "replay"},
    status_code=200,
    responses=describe.answers(schemas.ReprocessedMany, 409, 413, 415, 422),
)
async def reprocess_requests(deps: Deps, data: schemas.Reprocess) -> Response[bytes]:
    """Verify the quarantined requests of a source again, up to 200 at a time, newest first."""
    given = {"status": ["quarantined"], "source": [data.source], "reason": None, "event": None}
    query = _query(REPROCESS_AT_ONCE, data.cursor, {**given, "since": data.since, "until": data.until})
    if "*" not in data.source:
        deps.reprocessor.source(data.source)
    found = await asyncio.to_thread(deps.reads.requests, query)
    done: list[schemas.Reprocessed] = []
    for row in found.rows:
        with contextlib.suppress(Conflict, NotFound):  # somebody else was faster
            done.append(await _again(deps, row))
    return present.json(schemas.ReprocessedMany(done, found.next_cursor))


@post(
    "/requests/{request_id:str}/discard",
    tags=["requests"],
    opt={"scope": "replay"},
    status_code=204,
    responses=describe.answers(None, 404, 409, 422, status=204),
)
async def discard_request(deps: Deps, request_id: str) -> None:
    """Remove a quarantined request for good."""
    row = await asyncio.to_thread(deps.reads.request, request_id)
    if not await deps.reprocessor.discard(request_id):
        raise Conflict(f"The request is {row['status']}; only a quarantined one can be discarded.")


async def _again(deps: Deps, row: present.Record) -> schemas.Reprocessed:
    body = await asyncio.to_thread(deps.reads.request_body, row["id"])
    second = await deps.reprocessor.reprocess(row, body)
    if second.accepted is None:
        return schemas.Reprocessed(row["id"], "quarantined", second.reason, None)
    status = "duplicate" if second.accepted.duplicate else "accepted"
    return schemas.Reprocessed(row["id"], status, None, second.accepted.event_id)


def _with_headers(row: present.Record) -> schemas.Request:
    shown = present.request(row)
    shown.headers = present.stored(row["headers"])
    return shown
