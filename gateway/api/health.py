"""Health, for whatever watches this gateway; without an API key, and so without anything that is nobody's business."""

from __future__ import annotations

import asyncio

from litestar import Response, get

from gateway.api import present
from gateway.api.deps import Deps
from gateway.errors import STORE_REMEDIES, StoreState, Unavailable


@get("/healthz")
async def healthz() -> dict[str, str]:
    """Whether the process answers."""
    return {"status": "ok"}


@get("/readyz")
async def readyz(deps: Deps) -> Response[bytes]:
    """Whether the store takes what arrives, what waits in it, and which modules are broken."""
    if deps.journal.health.trouble is not None:
        return _away(deps.journal.health.trouble.state)
    now = deps.clock()
    try:
        backlog = await asyncio.to_thread(deps.reads.backlog, now)
    except Unavailable as error:
        return _away(error.state)
    broken = [*deps.broken(), *(found for manifest in deps.live.fanout.apps.values() for found in manifest.broken)]
    oldest = backlog["oldest_due_at"]
    return present.json(
        {
            "status": "ready",
            "store": {"state": "ok"},
            "backlog": {
                "due": backlog["due"],
                "oldest_due_ms": (now - oldest) // 1000 if oldest is not None else None,
                "held": backlog["held"],
                "unwritten": deps.journal.queued,
            },
            "broken": [{"file": found.file.rpartition("/")[2], "message": found.message} for found in broken],
        }
    )


def _away(state: StoreState) -> Response[bytes]:
    store = {"state": state, "detail": STORE_REMEDIES[state]}
    return present.json({"status": "unavailable", "store": store}, 503, {"Retry-After": "1"})
