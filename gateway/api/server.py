"""The HTTP server: uvicorn on httptools and uvloop, with the bounds that a door to the internet needs and uvicorn lacks."""

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
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.api.inbound import MAX_HEAD_BYTES, PREFIX, Door
from gateway.api.listener import BACKLOG
from gateway.api.problems import MEDIA_TYPE, PROBLEMS, problem
from gateway.ids import new_id

HEAD_SECONDS = 10.0
SWEEP_SECONDS = 1.0
DRAIN_SECONDS = 10


class Protocol(HttpToolsProtocol):
    """One connection: what of a request is no body arrives within HEAD_SECONDS and MAX_HEAD_BYTES, or it ends."""

    def __init__(self, door: Door, **rest: Any) -> None:
        super().__init__(**rest)
        self._door = door

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.head_since: float | None = self.loop.time()
        self.beside_body = 0
        super().connection_made(cast(asyncio.Transport, _Coalesced(transport, self.loop)))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self.head_since is None:
            self.head_since = self.loop.time()

    def on_header(self, name: bytes, value: bytes) -> None:
        # What comes after a chunked body is no header: nothing there may sign or authorise, and nothing is kept.
        if self.head_since is not None:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self.head_since, self.beside_body = None, 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self.beside_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.beside_body = 0
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Bytes of a request, of which heads, chunk extensions and trailers are bounded: the body's are where it is read."""
        self.beside_body += len(data)
        super().data_received(data)
        if self.beside_body > MAX_HEAD_BYTES:
            self.refuse("headers_too_large")

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if not cycle.scope["path"].startswith(PREFIX):
            super()._start_asgi_task(cycle, app)
            return
        task = self.loop.create_task(self._webhook(cycle))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _webhook(self, cycle: RequestResponseCycle) -> None:
        """Serve a webhook without ASGI: its messages, and a response in several of them, cost as much as all the rest."""
        reply = await self._door.answer(cast(Any, cycle.scope), cast(Any, cycle.receive))
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        if cycle.disconnected:
            return
        closes = reply.close or not cycle.keep_alive
        end = b"connection: close\r\n\r\n" if closes else b"\r\n"
        self.transport.write(reply.head + end + (b"" if cycle.scope["method"] == "HEAD" else reply.body))
        if closes:
            self.transport.close()
        cycle.on_response()

    def send_400_response(self, msg: str) -> None:
        """End the connection with a problem: what it sent is no HTTP."""
        self.refuse("unreadable")

    def refuse(self, code: str) -> None:
        """End the connection with a problem: what it sent is no request yet."""
        if self.transport.is_closing():
            return
        request_id, (status, title, _) = new_id("req"), PROBLEMS[code]
        body = problem(code, request_id)
        lines = [
            f"HTTP/1.1 {status} {title}",
            f"content-type: {MEDIA_TYPE}",
            f"content-length: {len(body)}",
            f"x-request-id: {request_id}",
            "connection: close",
            "\r\n",
        ]
        self.transport.write("\r\n".join(lines).encode() + body)
        self.transport.close()


class _Coalesced:
    """A transport that sends what is written in one turn of the loop at once: uvicorn writes head and body apart, and on
    a small response the second system call costs as much as all of its Python."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        parts, self._parts = self._parts, []
        if parts and not self._transport.is_closing():
            self._transport.write(b"".join(parts))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


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

    async def sweep(self) -> None:
        """End connections whose head does not come, for as long as the server lives."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            late = loop.time() - HEAD_SECONDS
            for connection in list(cast(set[object], self.server_state.connections)):
                if isinstance(connection, Protocol) and connection.head_since is not None and connection.head_since < late:
                    connection.refuse("timeout")


async def serve(app: ASGIApp, door: Door, listener: socket.socket) -> None:
    """Serve webhooks at the door and everything else by `app`, until SIGTERM or SIGINT."""
    config = uvicorn.Config(
        cast(Any, app),
        http=cast(Any, partial(Protocol, door)),
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
    sweeping = asyncio.create_task(server.sweep())
    try:
        await server.serve(sockets=[listener])
    finally:
        sweeping.cancel()
