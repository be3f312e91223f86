"""What holds for every call of the API, before Litestar sees it: a request id in and out, and how many calls a minute."""

from __future__ import annotations

import re
from collections.abc import Iterable

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api.deps import key_of
from gateway.api.problems import MEDIA_TYPE, PROBLEMS, problem
from gateway.clock import SECOND, Clock, Micros
from gateway.ids import new_id

WINDOW: Micros = 60 * SECOND
MAX_CALLERS = 10_000

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")

Headers = Iterable[tuple[bytes, bytes]]


def with_request_id(app: ASGIApp) -> ASGIApp:
    """Gives each call an id, the caller's own `X-Request-Id` if it has one, and puts it on the answer."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        given = header(scope["headers"], b"x-request-id")
        request_id = given if given is not None and _REQUEST_ID.fullmatch(given) else new_id("req").encode()
        scope["state"]["request_id"] = request_id.decode()

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
            await send(message)

        await app(scope, receive, answer)

    return call


class Allowance:
    """How many calls each caller may make within a WINDOW, in this process. A caller is an API key, or else an address."""

    def __init__(self, calls: int, clock: Clock) -> None:
        self._calls = calls
        self._clock = clock
        self._begun: Micros = 0
        self._made: dict[bytes | str, int] = {}

    def take(self, caller: bytes | str) -> tuple[bool, list[tuple[bytes, bytes]]]:
        """Whether the caller may make one more call, and the headers that say so."""
        now = self._clock()
        if now - self._begun >= WINDOW or len(self._made) > MAX_CALLERS:
            self._begun, self._made = now, {}
        made = self._made[caller] = self._made.get(caller, 0) + 1
        reset = (self._begun + WINDOW - now) // SECOND + 1
        left = max(self._calls - made, 0)
        headers = [
            (b"ratelimit-limit", b"%d" % self._calls),
            (b"ratelimit-remaining", b"%d" % left),
            (b"ratelimit-reset", b"%d" % reset),
        ]
        return made <= self._calls, headers if made <= self._calls else [*headers, (b"retry-after", b"%d" % reset)]

    def limit(self, app: ASGIApp) -> ASGIApp:
        """The app, for callers within their allowance; others are told to wait."""

        async def call(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or not scope["path"].startswith("/api/"):
                await app(scope, receive, send)
                return
            allowed, headers = self.take(_caller(scope))

            async def answer(message: Message) -> None:
                if message["type"] == "http.response.start":
                    message["headers"] = [*message["headers"], *headers]
                await send(message)

            if allowed:
                await app(scope, receive, answer)
            else:
                await refuse(scope, answer, "rate_limited")

        return call


def with_options(app: ASGIApp) -> ASGIApp:
    """Answers OPTIONS with the methods a resource takes; Litestar's own answer names those of its first handler only."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "OPTIONS":
            await app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 405:
                allow = header(message["headers"], b"allow") or b""
                await send({"type": "http.response.start", "status": 204, "headers": [(b"allow", allow)]})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                answered.append(True)
            elif not answered:
                await send(message)

        answered: list[bool] = []
        await app({**scope, "method": "TRACE"}, receive, answer)  # a method that nothing takes

    return call


async def refuse(scope: Scope, send: Send, code: str, detail: str | None = None) -> None:
    """Answer a call with a problem."""
    text = problem(code, scope["state"]["request_id"], detail=detail, instance=scope["path"])
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", b"%d" % len(text))]
    if PROBLEMS[code][0] == 503:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": PROBLEMS[code][0], "headers": headers})
    await send({"type": "http.response.body", "body": text, "more_body": False})


def header(headers: Headers, name: bytes) -> bytes | None:
    """The first value of a header (name in lower case), or None."""
    return next((value for key, value in headers if key == name), None)


def _caller(scope: Scope) -> bytes | str:
    key = key_of((header(scope["headers"], b"authorization") or b"").decode("latin-1"))
    return key if key is not None else str((scope["client"] or ("",))[0])
