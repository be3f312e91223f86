"""`POST /webhooks/{source}`: a bare ASGI app in front of Litestar, because every webhook passes here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from litestar.types import ASGIApp, Receive, Scope, Send

from gateway.api.problems import MEDIA_TYPE, PROBLEMS, problem
from gateway.ids import new_id
from gateway.ingest.receive import UNKNOWN_SOURCE, Answer, Receiver
from gateway.sdk.scheme import Inbound
from gateway.telemetry import Telemetry

BODY_SECONDS = 30.0
MAX_HEADERS_BYTES = 65_536

Headers = Iterable[tuple[bytes, bytes]]

_JSON = (b"content-type", b"application/json")


class Unreadable(Exception):
    """The body cannot be taken; carries the problem's code."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def front_door(receiver: Receiver, api: ASGIApp, telemetry: Telemetry, max_body_bytes: int) -> ASGIApp:
    """Webhooks go straight to the receiver, everything else to `api`."""

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/webhooks/"):
            await api(scope, receive, send)
            return
        request_id = new_id("req")
        try:
            answer = await _answer(receiver, scope, receive, request_id, max_body_bytes)
        except Exception as error:
            telemetry.emit("api.error", request=request_id, path=scope["path"], error=repr(error), exception=error)
            answer = Answer(500, code="internal")
        await _send(send, answer, request_id, scope["path"])

    return front


async def _answer(receiver: Receiver, scope: Scope, receive: Receive, request_id: str, limit: int) -> Answer:
    path: str = scope["path"]
    source = receiver.source(path.removeprefix("/webhooks/").rstrip("/"))
    if source is None:
        return UNKNOWN_SOURCE
    if scope["method"] != "POST":  # type: ignore[typeddict-item]
        return Answer(405, code="method_not_allowed")
    try:
        headers = _headers(scope["headers"], limit)
        body = await _body(receive, limit)
    except Unreadable as error:
        return Answer(PROBLEMS[error.code][0], code=error.code)
    return await receiver.receive(source, Inbound("POST", _url(scope), headers, body), request_id)


def _headers(raw: Headers, limit: int) -> list[tuple[str, str]]:
    """The headers as text, unless they already say that the body cannot be taken."""
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in raw]
    size = 0
    for name, value in headers:
        size += len(name) + len(value)
        if name == "content-length" and value.isascii() and value.isdigit() and int(value) > limit:
            raise Unreadable("too_large")
        if name == "content-encoding" and value.lower() != "identity":
            raise Unreadable("unsupported_media_type")
    if size > MAX_HEADERS_BYTES:
        raise Unreadable("too_large")
    return headers


def _url(scope: Scope) -> str:
    raw = scope["raw_path"] or scope["path"].encode("utf-8", "surrogateescape")
    query = scope["query_string"]
    return (raw + b"?" + query if query and b"?" not in raw else raw).decode("latin-1")


async def _body(receive: Receive, limit: int) -> bytes:
    """The whole body, capped while it streams, within BODY_SECONDS."""
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body = message["body"]
        if len(body) > limit:
            raise Unreadable("too_large")
        return body
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _rest(receive, message, limit)
    except TimeoutError:
        raise Unreadable("timeout") from None


async def _rest(receive: Receive, message: object, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    current: dict[str, object] = message  # type: ignore[assignment]
    while True:
        if current["type"] != "http.request":
            raise Unreadable("unreadable")
        part = current.get("body", b"")
        assert isinstance(part, bytes)
        size += len(part)
        if size > limit:
            raise Unreadable("too_large")
        parts.append(part)
        if not current.get("more_body"):
            return b"".join(parts)
        current = await receive()  # type: ignore[assignment]


async def _send(send: Send, answer: Answer, request_id: str, path: str) -> None:
    body, media = answer.body, _JSON
    if answer.code is not None:
        body, media = problem(answer.code, request_id, instance=path), (b"content-type", MEDIA_TYPE.encode())
    headers = [media, (b"content-length", b"%d" % len(body)), (b"x-request-id", request_id.encode())]
    if answer.retry_after is not None:
        headers.append((b"retry-after", b"%d" % answer.retry_after))
    if answer.status == 405:
        headers.append((b"allow", b"POST"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
