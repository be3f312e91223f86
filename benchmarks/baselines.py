"""The baselines: two Litestar `@post` handlers that do nothing, and a bare ASGI no-op; on the server that the gateway uses."""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
import uvloop
from litestar import Litestar, post


@post("/webhooks/stripe")
async def litestar_noop() -> None:
    """Nothing: it does not even look at the body."""


@post("/webhooks/stripe")
async def litestar_json(data: dict[str, Any]) -> None:
    """Nothing, with the body as JSON, which any handler of a webhook would want."""


async def asgi_noop(scope: Any, receive: Any, send: Any) -> None:
    """Nothing, without a framework."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"{}"})


async def serve(port: int, app: Any) -> None:
    """Serve until killed."""
    await uvicorn.Server(uvicorn.Config(app, port=port, http="httptools", lifespan="off", log_config=None, access_log=False)).serve()


if __name__ == "__main__":
    apps = {"asgi": asgi_noop, "litestar": Litestar([litestar_noop]), "json": Litestar([litestar_json])}
    uvloop.run(serve(int(sys.argv[2]), apps[sys.argv[1]]))
