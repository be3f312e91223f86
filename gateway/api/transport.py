"""What stands between a connection and its transport: when to read on, and when to write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl


class Flow(FlowControl):
    """Uvicorn's, which each request lets read on, but not while the connection `rests`."""

    def __init__(self, transport: asyncio.Transport, rests: Callable[[], bool]) -> None:
        super().__init__(transport)
        self._rests = rests

    def resume_reading(self) -> None:
        if not self._rests():
            super().resume_reading()


class Coalesced:
    """A transport that sends what is written in one turn of the loop at once: uvicorn writes head and body apart, and on
    a small response the second system call costs as much as all of its Python. `close` is what uvicorn closes by."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, close: Callable[[], None]) -> None:
        self._transport = transport
        self.close = close
        self._loop = loop
        self._parts: list[bytes] = []
        self._ended = False
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def write_at_once(self, data: bytes) -> None:
        """Write a whole response: it need not wait for more."""
        if self._parts:
            self.write(data)
        else:
            self._transport.write(data)

    def close_at_once(self) -> None:
        self._flush()
        self._transport.close()

    def write_eof(self) -> None:
        self._flush()
        self._ended = True
        self._transport.write_eof()

    def _flush(self) -> None:
        parts, self._parts = self._parts, []
        if parts and not self._ended and not self._transport.is_closing():
            self._transport.write(b"".join(parts))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
