"""Health, for whatever watches this gateway; without an API key, and so without anything that is nobody's business."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from litestar import Request, Response, get
from litestar.openapi import ResponseSpec

from gateway.api import describe, present, schemas
from gateway.api.deps import Deps, may
from gateway.core.spec import BrokenModule
from gateway.errors import STORE_REMEDIES, StoreState, Unavailable
from gateway.registry import shown

READINESS = {503: ResponseSpec(schemas.Readiness, description="It does not take what arrives.", generate_examples=False)}


@get("/healthz", tags=["health"], security=[{}], responses=describe.public(schemas.Health))
async def get_health() -> Response[bytes]:
    """Whether the process answers."""
    return present.json(schemas.Health())


@get("/readyz", tags=["health"], security=[{}], responses=describe.public(schemas.Readiness) | READINESS)
async def get_readiness(deps: Deps, request: Request[Any, Any, Any]) -> Response[bytes]:
    """Whether the store takes what arrives, what waits in it, and which modules are broken; why, only with an API key."""
    if deps.journal.health.trouble is not None:
        return _away(deps.journal.health.trouble.state)
    now = deps.clock()
    try:
        backlog = await asyncio.to_thread(deps.reads.backlog, now)
    except Unavailable as error:
        return _away(error.state)
    told, oldest = may(request, "read"), backlog["oldest_due_at"]
    broken = [*deps.broken(), *(found for manifest in deps.live.fanout.apps.values() for found in manifest.broken)]
    waits = schemas.Backlog(
        due=backlog["due"],
        oldest_due_ms=(now - oldest) // 1000 if oldest is not None else None,
        held=backlog["held"],
        paused=backlog["paused"],
        unwritten=deps.journal.queued,
    )
    files = [_broken(found, told) for found in broken]
    return present.json(schemas.Readiness("ready", schemas.StoreHealth("ok"), waits, files))


def _broken(found: BrokenModule, told: bool) -> schemas.BrokenModule:
    return schemas.BrokenModule(shown(found.file), found.message) if told else schemas.BrokenModule(Path(found.file).name, None)


def _away(state: StoreState) -> Response[bytes]:
    store = schemas.StoreHealth(state, STORE_REMEDIES[state])
    return present.json(schemas.Readiness("unavailable", store), 503, {"Retry-After": "1"})
