"""`POST /webhooks/{source}`: beside the framework and not through it, because every webhook passes here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from http import HTTPStatus

import msgspec

from gateway.api.problems import MEDIA_TYPE, PROBLEMS, problem
from gateway.ids import new_id
from gateway.ingest.receive import UNKNOWN_SOURCE, Answer, Receiver
from gateway.ingest.sources import Source
from gateway.sdk.scheme import Inbound

MOST_COMING = 4  # bodies of the largest size
MAX_HEAD_BYTES = 65_536
MOST_INSTANCE = 1_000

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


class Head(msgspec.Struct, frozen=True):
    """What comes before a body. `url` is as it was sent, `path` what it asks for; header names are in lower case. `expects`:
    whether the body is sent once it is asked for (https://www.rfc-editor.org/rfc/rfc9110#name-expect)."""

    method: str
    path: str
    url: str
    headers: Headers
    expects: bool
    keep_alive: bool


class Door:
    """Where webhooks come in. `coming` counts the bytes of bodies that are not whole yet."""

    def __init__(self, receiver: Receiver, max_body_bytes: int) -> None:
        self.receiver = receiver
        self.max_body_bytes = max_body_bytes
        self.coming = 0

    def is_full(self) -> bool:
        """Whether no more of what is not whole yet may be kept."""
        return self.coming > self.max_body_bytes * MOST_COMING


class Webhook:
    """One request under `/webhooks/`, in the place of uvicorn's cycle, which speaks ASGI: without its messages, and without a
    task for every request.

    It begins with its turn on the connection, and gives its reply once.
    """

    # Uvicorn's protocol sets it for a cycle; nobody waits for it here.
    message_event = asyncio.Event()

    def __init__(self, door: Door, head: Head, reply: Callable[[Webhook, Reply], None]) -> None:
        self.head = head
        self.keep_alive = head.keep_alive
        self.disconnected = self.response_started = self.response_complete = False
        self._door = door
        self._reply = reply
        self._id = new_id("req")
        self._source: Source | None = None
        self._headers: list[tuple[str, str]] = []
        self._parts: list[bytes] = []
        self._size = self._counted = 0
        self._whole = False

    def begin(self) -> None:
        """Its turn has come."""
        source = self._door.receiver.source(self.head.path.removeprefix(PREFIX).removesuffix("/"))
        if source is None:
            self._answer(UNKNOWN_SOURCE)
            return
        if self.head.method != "POST":
            self._answer(Answer(405, code="method_not_allowed"))
            return
        try:
            self._headers = _headers(self.head.headers, self._door.max_body_bytes)
        except Unreadable as error:
            self._refuse(error.code)
            return
        self._source = source
        self.take(b"")
        if self._whole:
            self.complete()

    @property
    def wanted(self) -> bool:
        """Whether more of its body is to come."""
        return self._source is not None and not self._whole and not self.response_complete

    def take(self, part: bytes) -> None:
        """Some of its body, capped while it streams."""
        if self.response_complete:
            return
        self._size += len(part)
        if part:
            self._parts.append(part)
        if self._source is not None and self._size > self._door.max_body_bytes:
            self._refuse("too_large")

    def wait(self) -> None:
        """The rest of its body is waited for. Nobody has been verified yet, and all that are waited for must not fill the memory
        together."""
        more, self._counted = self._size - self._counted, self._size
        self._door.coming += more
        if more and self._door.is_full():
            self._refuse("overloaded")

    def complete(self) -> None:
        """Its body is whole."""
        self._whole = True
        if self._source is None or self.response_complete:
            return
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._release()
        self._door.receiver.receive(self._source, Inbound("POST", self.head.url, self._headers, body), self._id, self._answer)

    def drop(self) -> None:
        """Its connection is lost."""
        self.disconnected = True
        self._release()

    def _release(self) -> None:
        """Its body is not needed any more. It is let go at once: a connection and its webhook hold each other."""
        self._parts = []
        self._door.coming -= self._counted
        self._counted = 0

    def _refuse(self, code: str) -> None:
        self._release()
        self._answer(Answer(PROBLEMS[code][0], code=code, retry_after=1 if code == "overloaded" else None))

    def _answer(self, answer: Answer) -> None:
        if answer.delay:
            asyncio.get_running_loop().call_later(answer.delay, self._send, answer)
        else:
            self._send(answer)

    def _send(self, answer: Answer) -> None:
        self.response_started = self.response_complete = True
        self._reply(self, _reply(answer, self._id, self.head.path))


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


def _reply(answer: Answer, request_id: str, path: str) -> Reply:
    if answer.code is None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\n"
        return Reply(head % (len(answer.body), request_id.encode()), answer.body, close=False)
    body = problem(answer.code, request_id, instance=path if len(path) <= MOST_INSTANCE else "")
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
