"""A quarantined request looked at again: judged as of its receipt, with the secrets there are now; and in words, why not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from gateway import codec
from gateway.clock import SECOND, Clock, Micros
from gateway.errors import Conflict
from gateway.ingest.receive import Live, Receiver
from gateway.ingest.sources import Secret, Source
from gateway.sdk.provider import verify
from gateway.sdk.scheme import Inbound, Rejected, Verified
from gateway.store.inbox import Accepted, Discard, Judge, Release, RequestRecord
from gateway.store.journal import Journal

Row = Mapping[str, Any]


class Second(msgspec.Struct, frozen=True):
    """What became of a request at second sight: accepted as an event, or why it is still refused."""

    accepted: Accepted | None = None
    reason: str | None = None


class Reprocessor:
    """Verifies stored requests anew."""

    def __init__(self, *, journal: Journal, live: Live, receiver: Receiver, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._live = live
        self._receiver = receiver

    def source(self, name: str) -> Source:
        """A source to judge by. Raises Conflict when it is gone."""
        source = self._live.sources.get(name)
        if source is None:
            raise Conflict(f"There is no source {name!r}; make it, and try again.")
        return source

    async def reprocess(self, row: Row, body: bytes) -> Second:
        """Verify a quarantined request as of its receipt, and accept it if it holds. Raises Conflict when it cannot be."""
        source = self.source(row["source"])
        inbound, now = _inbound(row, body), row["received_at"]
        secrets = _secrets(source, now)
        verdict = verify(source.provider, inbound, [secret.text for secret in secrets], now // SECOND)
        if isinstance(verdict, Rejected):
            await self._journal.commit(Judge(row["id"], verdict.reason))
            return Second(reason=verdict.reason)
        number = secrets[verdict.secret_index].n
        accept = self._receiver.accept(source, inbound, _record(row, inbound, number))
        accepted = await self._journal.commit(Release(accept.event, accept.deliveries, row["id"], number, self._clock()))
        if accepted is None:
            raise Conflict("This request is not quarantined any more.")
        return Second(accepted=accepted)

    async def discard(self, request_id: str) -> bool:
        """Remove a quarantined request; False when it is not one."""
        return await self._journal.commit(Discard(request_id))

    def diagnose(self, row: Row, body: bytes) -> str | None:
        """In a sentence, what a closer look at a quarantined request tells, beyond the reason it was refused for."""
        source = self._live.sources.get(row["source"])
        if source is None:
            return f"The source {row['source']!r} is not there any more."
        inbound, now = _inbound(row, body), row["received_at"]
        if _holds(source, inbound, _secrets(source, now), now):
            return "With the secrets the source has now it would be accepted: reprocess it."
        return next(_guesses(source, self._live.sources.values(), inbound, now), None)


def _guesses(source: Source, others: Any, inbound: Inbound, now: Micros) -> Iterator[str]:
    for secret in source.secrets:
        if not secret.lives(now) and _holds(source, inbound, [secret], now):
            yield f"It is signed with secret {secret.n}, which had expired."
    for other in others:
        if other.provider is source.provider and other.id != source.id and _holds(source, inbound, other.secrets, now):
            yield f"It is signed with a secret of the source {other.name!r}: the third party sends to the wrong URL."
    for what, body in (
        ("white space around the body", inbound.body.strip()),
        ("a line end that the sender's body had", inbound.body + b"\n"),
        ("line ends (CRLF to LF)", inbound.body.replace(b"\n", b"\r\n")),
    ):
        if _holds(source, msgspec.structs.replace(inbound, body=body), _secrets(source, now), now):
            yield f"The body was altered on the way: {what}. Look at what stands before the gateway."
    verdict = verify(source.provider, inbound, [secret.text for secret in source.secrets], now // SECOND)
    if isinstance(verdict, Rejected) and verdict.detail:
        yield verdict.detail


def _holds(source: Source, inbound: Inbound, secrets: Sequence[Secret], now: Micros) -> bool:
    verdict = verify(source.provider, inbound, [secret.text for secret in secrets], now // SECOND)
    return isinstance(verdict, Verified)


def _secrets(source: Source, at: Micros) -> list[Secret]:
    """The secrets that a request of that time may be signed with: those that had not expired, and those added since."""
    return [secret for secret in source.secrets if secret.lives(at)]


def _inbound(row: Row, body: bytes) -> Inbound:
    headers = [(name, value) for name, value in codec.loads(bytes(row["headers"]))]
    return Inbound(row["method"], row["url"], headers, body)


def _record(row: Row, inbound: Inbound, secret: int | None) -> RequestRecord:
    return RequestRecord(
        id=row["id"],
        source=row["source"],
        received_at=row["received_at"],
        method=row["method"],
        url=row["url"],
        headers=bytes(row["headers"]),
        body=inbound.body,
        secret_index=secret,
    )
