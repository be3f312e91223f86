"""The HTTP server: uvicorn, with webhooks beside the framework, and connections that are awaited no longer than they may."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Generator
from functools import partial
from typing import Any, cast

import uvicorn
from litestar.types import ASGIApp

from gateway.api.inbound import Door
from gateway.api.listener import BACKLOG, most_connections
from gateway.api.protocol import Protocol

SWEEP_SECONDS = 1.0
DRAIN_SECONDS = 10


class Server(uvicorn.Server):
    """Uvicorn, ended by SIGTERM and SIGINT in good order and without raising them again."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        yield

    def stop(self) -> None:
        """Take no more connections, let open requests end, and return from `serve`."""
        self.should_exit = True


async def _sweep(awaited: dict[Protocol, float]) -> None:
    """End the connections that were awaited too long."""
    now = asyncio.get_running_loop().time
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        for connection in [connection for connection, until in awaited.items() if until < now()]:
            connection.end("timeout")


async def serve(app: ASGIApp, door: Door, listener: socket.socket) -> None:
    """Serve webhooks at the door and everything else by `app`, until SIGTERM or SIGINT."""
    awaited: dict[Protocol, float] = {}
    config = uvicorn.Config(
        cast(Any, app),
        http=cast(Any, partial(Protocol, door, awaited, most_connections())),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    server = Server(config)
    sweeping = asyncio.create_task(_sweep(awaited))
    try:
        await server.serve(sockets=[listener])
    finally:
        sweeping.cancel()
