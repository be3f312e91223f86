"""One HTTP connection: uvicorn's protocol on httptools, with the bounds that a door to the internet needs and uvicorn lacks."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Literal, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.api.inbound import MAX_HEAD_BYTES, PREFIX, Door, Head, Reply, Webhook
from gateway.api.problems import MEDIA_TYPE, PROBLEMS, problem
from gateway.api.transport import Coalesced, Flow
from gateway.ids import new_id

HEAD_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 5.0
BODY_SECONDS = 30.0
LINGER_SECONDS = 2.0
MOST_PIPELINED = 100

Cycle = RequestResponseCycle | Webhook


class Protocol(HttpToolsProtocol):
    """One connection. What its peer is to do next is `awaited`, or the connection ends: to send a head within HEAD_SECONDS and
    MAX_HEAD_BYTES, a body within BODY_SECONDS, and to read what it asked for.

    All connections share `awaited`: until when, the longest awaited first. Beyond `most` of them, that one makes room.

    Requests that are pipelined are answered one by one: `_active` is the one whose turn it is, `cycle` the one that came last. While
    others wait behind it, or answers are not read, nothing more is read.
    """

    def __init__(self, door: Door, awaited: dict[Protocol, float], most: int, **rest: Any) -> None:
        super().__init__(**rest)
        self._door = door
        self._awaited = awaited
        self._most = most

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.arriving: Literal["head", "body"] | None = "head"
        self.beside_body = 0
        self._head_size = self._held = 0
        self._moved = self._lingering = self._stalled = False
        self._refusal: str | None = None
        self._active: Cycle | None = None
        self._upgrades: list[tuple[bytes, bytes]] | None = None
        self._out = Coalesced(transport, self.loop, self._close)
        super().connection_made(cast(asyncio.Transport, self._out))
        self.flow = Flow(cast(asyncio.Transport, self._out), self._rests)
        self._turn()
        if len(self.connections) > self._most:
            longest = next(iter(self._awaited))
            longest.end("overloaded")
            longest._out.close_at_once()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lingering = True
        self._awaited.pop(self, None)
        super().connection_lost(exc)
        self._drop_all()
        # A connection and its requests hold each other; what they hold is let go at once.
        self.cycle = cast(Any, None)
        self._active = None

    def on_message_begin(self) -> None:
        self.url, self.headers, self.expect_100_continue, self._head_size = b"", [], False, 0
        if self.arriving is None:
            self.arriving, self._moved = "head", True

    def on_header(self, name: bytes, value: bytes) -> None:
        # What comes after a chunked body is no header: nothing there may sign or authorise, and nothing is kept.
        if self.arriving == "head":
            name = name.lower()
            self._head_size += len(name) + len(value)
            self.headers.append((name, value))
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True

    def on_headers_complete(self) -> None:
        if self._is_deaf():  # what was pipelined behind a request that ends the connection
            return
        parser: Any = self.parser
        if parser.should_upgrade():
            self._upgrades = self.headers
            return
        if self._upgrades is not None:
            self.headers, self._upgrades = self._upgrades, None
        if self._head_size + len(self.url) > MAX_HEAD_BYTES:
            self._stop("headers_too_large")
        self.arriving, self.beside_body, self._moved = "body", 0, True
        url: Any = httptools.parse_url(self.url)
        path = unquote(url.path.decode("ascii"))
        if path.startswith(PREFIX):
            self._on_webhook(path, url.path if url.query is None else url.path + b"?" + url.query)
        else:
            self._on_other()
        if len(self.pipeline) > MOST_PIPELINED:
            self._stop("overloaded")

    def _stop(self, code: str) -> None:
        """Refuse from within the parser, which is to read no further."""
        self.refuse(code)
        raise OverflowError(code)

    def _on_webhook(self, path: str, target: bytes) -> None:
        parser: Any = self.parser
        keep_alive = parser.get_http_version() != "1.0" and parser.should_keep_alive()
        method = parser.get_method().decode()
        head = Head(method, path, target.decode("latin-1"), self.headers, self.expect_100_continue, keep_alive)
        webhook = Webhook(self._door, head, self._reply)
        answered = self._is_answered()
        self.cycle = cast(Any, webhook)
        if answered and not self.flow.write_paused:
            self._active = webhook
            self._begin(webhook)
        else:
            self._stalled = self._stalled or answered
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, cast(Any, None)))

    def _on_other(self) -> None:
        """What uvicorn does when a message begins, and when its head is complete."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers += headers
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: Cycle, app: Any) -> None:
        self._active, self._stalled = cycle, False
        if isinstance(cycle, Webhook):
            # Not at once: as many as are pipelined would be inside of one another.
            self.loop.call_soon(self._begin, cycle)
        else:
            super()._start_asgi_task(cycle, app)

    def _begin(self, webhook: Webhook) -> None:
        webhook.begin()
        if webhook.head.expects and webhook.wanted:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _reply(self, webhook: Webhook, reply: Reply) -> None:
        if self._is_over():
            return
        closes = reply.close or not webhook.keep_alive
        end = b"connection: close\r\n\r\n" if closes else b"\r\n"
        self._out.write_at_once(reply.head + end + (b"" if webhook.head.method == "HEAD" else reply.body))
        if closes:
            self._close()
        self.on_response_complete()

    def on_body(self, body: bytes) -> None:
        self.beside_body = 0
        if isinstance(self.cycle, Webhook):
            self.cycle.take(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._upgrades is not None:
            return
        self.arriving, self.beside_body, self._moved = None, 0, True
        if isinstance(self.cycle, Webhook):
            self.cycle.complete()
        else:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        # As uvicorn's, without its timer for every answer: what is awaited is swept.
        self.server_state.total_requests += 1
        if self._is_over():
            return
        self._stalled = self.flow.write_paused
        if not self._stalled:
            self._go_on()
        self._turn()

    def _go_on(self) -> None:
        """The one whose turn it was has been answered."""
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._refusal is not None:
            self._refuse_now(self._refusal)
        if self._held and not self.pipeline:
            self._hold(-self._held)
        if self.flow.read_paused:
            self.flow.resume_reading()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.flow.pause_reading()
        self._turn()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled and not self._is_over():
            self._stalled = False
            self._go_on()
        self.flow.resume_reading()
        self._turn()

    def _rests(self) -> bool:
        """Whether nothing more is to be read for now."""
        return bool(self.pipeline) or self.flow.write_paused

    def _hold(self, size: int) -> None:
        """Of what is pipelined and waits, as of a body that is not whole, all together must not fill the memory."""
        self._held += size
        self._door.coming += size
        if size > 0 and self._door.is_full():
            self.refuse("overloaded")

    def _turn(self) -> None:
        """Await what the peer is to do next, unless it is our turn: it waits for an answer, or behind one that is not there yet."""
        self._moved = False
        if self._lingering:
            return
        self._awaited.pop(self, None)
        if self.flow.write_paused:
            seconds = BODY_SECONDS
        elif self.arriving == "body":
            seconds = None if self.pipeline else BODY_SECONDS
        elif not self._is_answered():
            seconds = None
        else:
            seconds = HEAD_SECONDS if self.arriving == "head" else KEEP_ALIVE_SECONDS
        if seconds is not None and not self.transport.is_closing():
            self._awaited[self] = self.loop.time() + seconds

    def end(self, code: str) -> None:
        """End a connection that was awaited: with a problem, where one can still be told."""
        del self._awaited[self]
        if self._lingering or self.flow.write_paused:
            self.transport.abort()
        elif self.arriving != "head" and self.cycle.response_started:
            self._close()
        else:
            self.refuse(code)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request, of which heads, chunk extensions and trailers are bounded: the body's are where it is read."""
        if self._is_deaf():
            return
        self.beside_body += len(data)
        self._parse(data)
        if self.beside_body > MAX_HEAD_BYTES:
            self.refuse("headers_too_large")
        elif self.pipeline:
            self._hold(len(data))
        elif isinstance(self.cycle, Webhook) and self.cycle.wanted:
            self.cycle.wait()
        if self._moved:
            self._turn()

    def _parse(self, data: bytes) -> None:
        try:
            while not self._is_deaf():
                try:
                    self.parser.feed_data(data)
                    return
                except httptools.HttpParserUpgrade as upgrade:
                    data = self._head_without_upgrade() + data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            self.send_400_response(str(error))

    def _head_without_upgrade(self) -> bytes:
        """What the parser is to read of a request in the place of its head. A server may ignore that a client would rather speak
        another protocol (https://www.rfc-editor.org/rfc/rfc9110#name-upgrade), as Java's does on plain http, and httptools would
        take all that follows for that one."""
        parser: Any = self.parser
        method, version = parser.get_method(), parser.get_http_version().encode()
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        if method == b"CONNECT":
            self.refuse("method_not_allowed")
        lines = [b"%b %b HTTP/%b" % (method, self.url, version)]
        for name, value in self._upgrades or ():
            if name == b"connection" and b"close" in value.lower():
                lines.append(b"connection: close")
            elif name in (b"content-length", b"transfer-encoding", b"expect"):
                lines.append(name + b": " + value)
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def send_400_response(self, msg: str) -> None:
        """End the connection with a problem: what it sent is no HTTP, or there was no memory to read it."""
        error = sys.exc_info()[1]
        self.refuse("overloaded" if error is not None and isinstance(error.__context__, MemoryError) else "unreadable")

    def refuse(self, code: str) -> None:
        """End the connection with a problem, in the place of an answer to what it sends. What it has asked before is answered first."""
        if self._is_deaf():
            return
        if self.pipeline:
            self._refusal = code
            if self.arriving == "body":
                dropped, _ = self.pipeline.popleft()
                _drop(dropped)
                self.arriving = "head"
        elif self.arriving == "body" and self.cycle.response_started:
            self._close()
        elif self.arriving == "body" or self._is_answered():
            self._refuse_now(code)
        else:
            self._refusal = code

    def _refuse_now(self, code: str) -> None:
        request_id, (status, title, _) = new_id("req"), PROBLEMS[code]
        body = problem(code, request_id)
        lines = [
            f"HTTP/1.1 {status} {title}",
            f"content-type: {MEDIA_TYPE}",
            f"content-length: {len(body)}",
            f"x-request-id: {request_id}",
            *(["retry-after: 1"] if status == 503 else []),
            "connection: close",
            "\r\n",
        ]
        self.transport.write("\r\n".join(lines).encode() + body)
        self._close()

    def _close(self) -> None:
        """Behind the last answer. Where a peer is in the middle of something, the rest is read and thrown away for LINGER_SECONDS:
        closing with bytes unread resets the connection, and the answer is lost with it
        (https://www.rfc-editor.org/rfc/rfc9112#name-tear-down)."""
        in_the_middle = self.arriving == "body" or (self.arriving == "head" and self.beside_body > 0)
        if self._is_over() or not in_the_middle:
            self._out.close_at_once()
            return
        self._lingering = True
        self._awaited.pop(self, None)
        self._awaited[self] = self.loop.time() + LINGER_SECONDS
        self._drop_all()
        self._out.write_eof()
        self.flow.resume_reading()

    def _drop_all(self) -> None:
        """Nothing that was asked is answered any more."""
        for cycle in (self._active, self.cycle, *(waiting for waiting, _ in self.pipeline)):
            if cycle is not None:
                _drop(cycle)
        self.pipeline.clear()
        self._hold(-self._held)

    def _is_answered(self) -> bool:
        """Whether all that was asked has its answer."""
        return not self.pipeline and (self._active is None or self._active.response_complete)

    def _is_over(self) -> bool:
        """Whether nothing is to be answered any more."""
        return self._lingering or self.transport.is_closing()

    def _is_deaf(self) -> bool:
        """Whether nothing that comes is read any more."""
        return self._refusal is not None or self._is_over()


def _drop(cycle: Cycle) -> None:
    """Nobody is there any more for its answer."""
    if isinstance(cycle, Webhook):
        cycle.drop()
    elif not cycle.response_complete:
        cycle.disconnected = True
        cycle.message_event.set()
