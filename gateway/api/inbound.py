"""`POST /webhooks/{source}`: beside the framework and not through it, because every webhook passes here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from http import HTTPStatus

import msgspec
from litestar.types import Receive, Scope

from gateway.api.problems import MEDIA_TYPE, PROBLEMS, problem
from gateway.ids import new_id
from gateway.ingest.receive import UNKNOWN_SOURCE, Answer, Receiver
from gateway.sdk.scheme import Inbound
from gateway.telemetry import Telemetry

MOST_COMING = 4  # bodies of the largest size
MAX_HEAD_BYTES = 65_536

Headers = Iterable[tuple[bytes, bytes]]

PREFIX = "/webhooks/"
# What is refused before its body has been read: whatever is still to come is not waited for.
UNREAD = (
    "too_large",
    "headers_too_large",
    "timeout",
    "unreadable",
    "unsupported_media_type",
    "unknown_source",
    "method_not_allowed",
    "overloaded",
)


class Reply(msgspec.Struct, frozen=True):
    """An HTTP response: its head without the empty line at the end, its body, and whether the connection ends with it."""

    head: bytes
    body: bytes
    close: bool


class Unreadable(Exception):
    """The body cannot be taken; carries the problem's code."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Door:
    """Where webhooks come in, and are answered in one piece."""

    def __init__(self, receiver: Receiver, telemetry: Telemetry, max_body_bytes: int) -> None:
        self._receiver = receiver
        self._telemetry = telemetry
        self._max_body_bytes = max_body_bytes
        self._coming = 0

    async def answer(self, scope: Scope, receive: Receive) -> Reply:
        """The reply to one request under `/webhooks/`."""
        request_id = new_id("req")
        try:
            answer = await self._answer(scope, receive, request_id)
        except Exception as error:
            self._telemetry.emit("api.error", request=request_id, path=scope["path"], error=repr(error), exception=error)
            answer = Answer(500, code="internal")
        if answer.delay:
            await asyncio.sleep(answer.delay)
        return _reply(answer, request_id, scope["path"])

    async def _answer(self, scope: Scope, receive: Receive, request_id: str) -> Answer:
        path: str = scope["path"]
        source = self._receiver.source(path.removeprefix(PREFIX).rstrip("/"))
        if source is None:
            return UNKNOWN_SOURCE
        if scope["method"] != "POST":  # type: ignore[typeddict-item]
            return Answer(405, code="method_not_allowed")
        try:
            headers = _headers(scope["headers"], self._max_body_bytes)
            body = await self._body(receive)
        except Unreadable as error:
            return Answer(PROBLEMS[error.code][0], code=error.code, retry_after=1 if error.code == "overloaded" else None)
        return await self._receiver.receive(source, Inbound("POST", _url(scope), headers, body), request_id)

    async def _body(self, receive: Receive) -> bytes:
        """The whole body, capped while it streams; the connection ends when it does not come in time."""
        parts: list[bytes] = []
        size = 0
        try:
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise Unreadable("unreadable")
                part, more = message["body"], message["more_body"]
                size += len(part)
                self._coming += len(part)
                if size > self._max_body_bytes:
                    raise Unreadable("too_large")
                # Nobody has been verified yet, and all that are waited for must not fill the memory together.
                if self._coming > self._max_body_bytes * MOST_COMING and (more or parts):
                    raise Unreadable("overloaded")
                parts.append(part)
                if not more:
                    return b"".join(parts)
        finally:
            self._coming -= size


def _headers(raw: Headers, limit: int) -> list[tuple[str, str]]:
    """The headers as text, unless they already say that the body cannot be taken."""
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in raw]
    size = 0
    for name, value in headers:
        size += len(name) + len(value)
        if name == "content-length" and value.isascii() and value.isdigit() and int(value.lstrip("0") or "0") > limit:
            raise Unreadable("too_large")
        if name == "content-encoding" and value.lower() != "identity":
            raise Unreadable("unsupported_media_type")
    if size > MAX_HEAD_BYTES:
        raise Unreadable("headers_too_large")
    return headers


def _url(scope: Scope) -> str:
    raw = scope["raw_path"] or scope["path"].encode("utf-8", "surrogateescape")
    query = scope["query_string"]
    return (raw + b"?" + query if query and b"?" not in raw else raw).decode("latin-1")


def _reply(answer: Answer, request_id: str, path: str) -> Reply:
    if answer.code is None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\n"
        return Reply(head % (len(answer.body), request_id.encode()), answer.body, close=False)
    body = problem(answer.code, request_id, instance=path)
    lines = [
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}",
        f"content-type: {MEDIA_TYPE}",
        f"content-length: {len(body)}",
        f"x-request-id: {request_id}",
        *([f"retry-after: {answer.retry_after}"] if answer.retry_after is not None else []),
        *(["allow: POST"] if answer.status == 405 else []),
        "",
    ]
    return Reply("\r\n".join(lines).encode(), body, close=answer.code in UNREAD)
