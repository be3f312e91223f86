"""`/requests`: what arrived, byte for byte, and what became of it."""

from __future__ import annotations

import asyncio

from litestar import Response, get

from gateway.api import present
from gateway.api.deps import Deps
from gateway.api.filters import Cursor, Limit, Many, filters, with_status
from gateway.store.reads import REQUEST_STATUS


@get("/requests")
async def list_requests(deps: Deps, limit: Limit = 50, cursor: Cursor = None, status: Many = None, source: Many = None) -> Response[bytes]:
    """Inbound requests, newest first."""
    query = with_status(filters(limit, cursor, {"q.source": source}), status, REQUEST_STATUS)
    return present.page(await asyncio.to_thread(deps.reads.requests, query), present.request)


@get("/requests/{request_id:str}")
async def get_request(deps: Deps, request_id: str) -> Response[bytes]:
    """One request with its headers."""
    return present.json(present.request(await asyncio.to_thread(deps.reads.request, request_id)))


@get("/requests/{request_id:str}/raw", opt={"scope": "payload:read"})
async def get_raw(deps: Deps, request_id: str) -> Response[bytes]:
    """The exact bytes that arrived."""
    body = await asyncio.to_thread(deps.reads.request_body, request_id)
    headers = {
        "Content-Disposition": f'attachment; filename="{request_id}.bin"',
        "X-Content-Type-Options": "nosniff",
    }
    return Response(body, media_type="application/octet-stream", headers=headers)
