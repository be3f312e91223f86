"""`Idempotency-Key`: a POST that is sent again is answered as the first time, without being carried out again.

What is kept is sealed: an answer may hold a new API key, which is nowhere else.

https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable

from litestar.types import ASGIApp, HTTPReceiveMessage, Message, Receive, Scope, Send

from gateway.api.conventions import header, refuse
from gateway.api.deps import key_of
from gateway.api.problems import code_of
from gateway.clock import Clock
from gateway.errors import Unavailable
from gateway.store.answers import Abandon, Answered, KeepAnswer, Reserve
from gateway.store.cipher import Cipher
from gateway.store.journal import Journal

MAX_KEY = 255
MAX_KEPT_BYTES = 1 << 20
LABEL = "answer"


def idempotent(
    app: ASGIApp,
    *,
    journal: Journal,
    cipher: Cipher,
    clock: Clock,
    is_known: Callable[[bytes], bool],
    max_body_bytes: int,
) -> ASGIApp:
    """The app, with answers kept for POSTs with an `Idempotency-Key` by callers whose API key `is_known`."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        key = header(scope["headers"], b"idempotency-key") if scope["type"] == "http" else None
        caller = key_of((header(scope["headers"], b"authorization") or b"").decode("latin-1")) if key is not None else None
        if key is None or scope["method"] != "POST" or not is_known(caller or b""):  # type: ignore[typeddict-item]
            await app(scope, receive, send)
            return
        if not 0 < len(key) <= MAX_KEY:
            await refuse(scope, send, "invalid_request", f"An `Idempotency-Key` has 1 to {MAX_KEY} characters, such as a UUID.")
            return
        body = await _body(receive, max_body_bytes)
        if body is None:
            await refuse(scope, send, "too_large")
            return
        fingerprint = cipher.fingerprint(b"%b\0%b\0%b" % (scope["path"].encode(), scope["query_string"], body))
        key_hash = hashlib.sha256(b"%b\0%b" % (caller or b"", key)).digest()
        try:
            earlier = await journal.commit(Reserve(key_hash, fingerprint, clock()))
        except Unavailable as error:
            await refuse(scope, send, code_of(error))
            return
        if earlier is not None:
            await _repeat(scope, send, earlier, fingerprint, cipher)
            return
        messages: list[Message] = []
        try:
            messages = await _carried_out(app, scope, body)
        finally:
            with contextlib.suppress(Unavailable):  # the reservation ends by itself
                await journal.commit(_kept(messages, key_hash, cipher))
        for message in messages:
            await send(message)

    return call


async def _repeat(scope: Scope, send: Send, earlier: Answered, fingerprint: bytes, cipher: Cipher) -> None:
    if earlier.fingerprint != fingerprint:
        await refuse(scope, send, "idempotency_mismatch")
    elif earlier.status is None:
        await refuse(scope, send, "idempotency_in_progress")
    else:
        body = cipher.decrypt(earlier.body, LABEL)
        headers = [(b"content-length", b"%d" % len(body)), (b"idempotent-replayed", b"true")]
        if earlier.content_type:
            headers.append((b"content-type", earlier.content_type.encode()))
        await send({"type": "http.response.start", "status": earlier.status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})


async def _carried_out(app: ASGIApp, scope: Scope, body: bytes) -> list[Message]:
    """The answer to a call, before it is sent."""
    messages: list[Message] = []

    async def collect(message: Message) -> None:
        messages.append(message)

    async def again() -> HTTPReceiveMessage:
        return {"type": "http.request", "body": body, "more_body": False}

    await app(scope, again, collect)
    return messages


def _kept(messages: list[Message], key_hash: bytes, cipher: Cipher) -> KeepAnswer | Abandon:
    """The command that keeps an answer; one that says "again", or nothing, is not kept."""
    status, content_type, text = _read(messages)
    if status in (0, 401, 403, 429) or status >= 500 or len(text) > MAX_KEPT_BYTES:
        return Abandon(key_hash)
    return KeepAnswer(key_hash, status, content_type, cipher.encrypt(text, LABEL))


def _read(messages: list[Message]) -> tuple[int, str, bytes]:
    status, content_type, parts = 0, "", list[bytes]()
    for message in messages:
        if message["type"] == "http.response.start":
            status = message["status"]
            content_type = (header(message["headers"], b"content-type") or b"").decode("latin-1")
        elif message["type"] == "http.response.body":
            parts.append(message["body"])
    return status, content_type, b"".join(parts)


async def _body(receive: Receive, limit: int) -> bytes | None:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message["body"])
        size += len(message["body"])
        if size > limit:
            return None
        if not message["more_body"]:
            return b"".join(parts)
