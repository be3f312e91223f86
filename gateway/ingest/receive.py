"""One inbound request to an answer: verify, parse, fan out, commit, acknowledge."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from gateway import codec
from gateway.clock import SECOND, Clock, Micros
from gateway.core.match import IF_ERROR
from gateway.errors import DeclarationError, Overloaded, Unavailable
from gateway.ids import sibling
from gateway.ingest.fanout import Fanout
from gateway.ingest.sources import Source, Unserved, Uses
from gateway.sdk.provider import event_name, read, told, verify
from gateway.sdk.scheme import Inbound, Rejected
from gateway.store.inbox import Accept, Accepted, EventRecord, Quarantine, RequestRecord
from gateway.store.journal import Journal
from gateway.telemetry import Telemetry

ESCAPED = "\uffff"
_SURROGATE = re.compile("[\ud800-\udfff]")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class Key:
    """An API key that may be used."""

    id: str
    scopes: frozenset[str]
    expires_at: Micros | None


@dataclass(slots=True)
class Live:
    """What this gateway serves right now; each member is replaced as a whole when it changes."""

    sources: Mapping[str, Source]
    fanout: Fanout
    keys: Mapping[bytes, Key] = field(default_factory=dict[bytes, Key])
    unserved: Mapping[str, Unserved] = field(default_factory=dict[str, Unserved])
    uses: Uses = field(default_factory=Uses)


class Answer(msgspec.Struct, frozen=True):
    """What to say to the sender, and after how many seconds: a JSON body, or the code of a problem."""

    status: int
    body: bytes = b""
    code: str | None = None
    retry_after: int | None = None
    delay: float = 0


REFUSED = Answer(401, code="verification_failed")
# Once more is refused than is kept, whoever sends it waits, so that a flood leaves the time to good senders.
REFUSED_LATE = Answer(401, code="verification_failed", delay=0.1)
# Whoever sent it is to send it again: it may well be right.
OUR_FAULT = Answer(500, code="internal", retry_after=60)
UNKNOWN_SOURCE = Answer(404, code="unknown_source")


class Receiver:
    """Receives webhooks for the live sources."""

    def __init__(
        self,
        *,
        journal: Journal,
        live: Live,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._journal = journal
        self._live = live
        self._clock = clock
        self._telemetry = telemetry

    def source(self, name: str) -> Source | None:
        """The source of this name, unless it is disabled."""
        source = self._live.sources.get(name)
        return source if source is not None and source.enabled else None

    def receive(self, source: Source, inbound: Inbound, request_id: str, answer: Callable[[Answer], None]) -> None:
        """Verify and keep one request, and answer. The answer of an accepted one comes after the commit, and only then (G1)."""
        try:
            self._receive(source, inbound, request_id, answer)
        except Exception as error:
            answer(self._failed(inbound, request_id, error))

    def _receive(self, source: Source, inbound: Inbound, request_id: str, answer: Callable[[Answer], None]) -> None:
        now = self._clock()
        secrets = source.live(now)
        verdict = verify(source.provider, inbound, [secret.text for secret in secrets], now // SECOND)
        request = RequestRecord(
            id=request_id,
            source=source.name,
            received_at=now,
            method=inbound.method,
            url=inbound.url,
            headers=codec.dumps(inbound.headers),
            body=inbound.body,
            secret_index=None if isinstance(verdict, Rejected) else secrets[verdict.secret_index].n,
        )
        if isinstance(verdict, Rejected):
            kept = self._quarantine(source, request, verdict)
            if verdict.reason == "provider_error":
                answer(OUR_FAULT)
            else:
                answer(REFUSED if kept else REFUSED_LATE)
            return
        if request.secret_index is not None:
            self._live.uses.secrets[source.id, request.secret_index] = now
        command = self.accept(source, inbound, request)
        try:
            committed = self._journal.commit(command)
        except Unavailable as error:
            answer(self._unavailable(source, error))
        else:
            committed.add_done_callback(lambda done: answer(self._committed(source, inbound, request, done)))

    def _committed(self, source: Source, inbound: Inbound, request: RequestRecord, done: asyncio.Future[Accepted]) -> Answer:
        error = done.exception()  # it is not raised: by its traceback it would hold the body, and itself, until the collector comes
        if isinstance(error, Unavailable):
            return self._unavailable(source, error)
        if isinstance(error, Exception):
            return self._failed(inbound, request.id, error)
        accepted = done.result()
        outcome = "duplicate" if accepted.duplicate else "accepted"
        took = self._clock() - request.received_at
        self._telemetry.emit(f"webhook.{outcome}", source=source.name, event_id=accepted.event_id, us=took)
        duplicate = b"true" if accepted.duplicate else b"false"
        return Answer(200, b'{"id":"%b","duplicate":%b}' % (accepted.event_id.encode(), duplicate))

    def _unavailable(self, source: Source, error: Unavailable) -> Answer:
        self._telemetry.emit("webhook.unavailable", source=source.name, state=error.state)
        return Answer(503, code="overloaded" if isinstance(error, Overloaded) else "unavailable", retry_after=1)

    def _failed(self, inbound: Inbound, request_id: str, error: Exception) -> Answer:
        path = inbound.url.partition("?")[0]
        self._telemetry.emit("api.error", request=request_id, path=path, error=repr(error), exception=error)
        return Answer(500, code="internal")

    def accept(self, source: Source, inbound: Inbound, request: RequestRecord) -> Accept:
        """The command that keeps a verified request, its event and its deliveries."""
        parsed = read(source.provider, inbound, lambda error: self._unread(source, request.id, error))
        event = EventRecord(
            id=sibling("evt", request.id),
            name=event_name(source.provider.name, parsed.type),
            source=source.name,
            key=_storable(parsed.key),
            occurred_at=parsed.occurred_at or request.received_at,
            received_at=request.received_at,
            attributes=self._attributes(parsed.attributes, source, request.id),
            request_id=request.id,
            data_path=parsed.data_path,
            data=parsed.data,
            traceparent=traceparent(inbound.header("traceparent")),
        )
        deliveries = self._live.fanout.deliveries(event, inbound.body)
        for delivery in deliveries:
            if delivery.skip_reason is not None and delivery.skip_reason.startswith(IF_ERROR):
                # Why stands with the delivery: the words may quote the payload.
                self._telemetry.emit("delivery.if_error", function=delivery.function_id, event_id=event.id)
        return Accept(event, deliveries, request)

    def _attributes(self, attributes: Mapping[str, Any], source: Source, request_id: str) -> bytes:
        try:
            return codec.dumps(attributes) if attributes else b"{}"
        except DeclarationError as error:
            self._unread(source, request_id, error)
            return b"{}"

    def _unread(self, source: Source, request_id: str, error: BaseException) -> None:
        self._telemetry.emit(
            "webhook.unread", source=source.name, request=request_id, provider=source.provider.name, error=told(source.provider, error)
        )

    def _quarantine(self, source: Source, request: RequestRecord, verdict: Rejected) -> bool:
        """Keep a request that failed verification, unless its source's budget is used up; whether it is kept."""
        kept = source.budget.take(len(request.body) + len(request.headers), request.received_at)
        if kept:
            try:
                self._journal.submit(Quarantine(request, verdict.reason))
            except Unavailable:
                kept = False
        self._telemetry.emit(
            "webhook.astray" if verdict.reason == "provider_error" else "webhook.refused",
            source=source.name,
            request=request.id,
            reason=verdict.reason,
            remedy=verdict.remedy,
            kept=kept,
        )
        return kept


def traceparent(value: str | None) -> str | None:
    """A `traceparent` header that is one: https://www.w3.org/TR/trace-context/#traceparent-header"""
    return value if value is not None and _TRACEPARENT.fullmatch(value) else None


def _storable(key: str) -> str:
    """A key as text that both databases keep: no NUL, no lone surrogate; no two keys have one text.

    What had to be escaped is marked, and so is what looks as if it had been. U+FFFF is no character, and in no one's ids.
    """
    if "\0" not in key and (key.isascii() or not (key.startswith(ESCAPED) or _SURROGATE.search(key))):
        return key
    return ESCAPED + key.replace("\\", "\\\\").replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
