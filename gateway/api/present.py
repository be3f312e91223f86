"""Rows as the API's resources: one function for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from litestar import Response

from gateway import codec
from gateway.api import schemas
from gateway.clock import NEVER, to_rfc3339
from gateway.core.spec import FunctionSpec, version_of
from gateway.ingest.sources import Source, Unserved
from gateway.sdk.provider import Provider
from gateway.sdk.scheme import REMEDIES
from gateway.store.reads import Page

Record = Mapping[str, Any]
P = TypeVar("P", schemas.EventPage, schemas.RunPage, schemas.RequestPage, schemas.DeliveryPage)


def json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response[bytes]:
    """A JSON response; stored JSON goes through as it is."""
    return Response(codec.dumps(value), status_code=status, media_type="application/json", headers=dict(headers or {}))


def page(found: Page, kind: type[P], present: Callable[[Record], Any]) -> Response[bytes]:
    """A page of a list."""
    data = [present(row) for row in found.rows]
    return json(kind(data=data, next_cursor=found.next_cursor, prev_cursor=found.prev_cursor, has_more=found.has_more))


def event(row: Record) -> schemas.Event:
    """An event without its data."""
    return schemas.Event(
        id=row["id"],
        name=row["name"],
        source=row["source"],
        key=row["key"],
        occurred_at=to_rfc3339(row["occurred_at"]),
        received_at=to_rfc3339(row["received_at"]),
        request_id=row["request_id"],
        attributes=stored(row["attributes"]),
        traceparent=row["traceparent"],
    )


def delivery(row: Record) -> schemas.Delivery:
    """What became of an event for one function."""
    return schemas.Delivery(
        event_id=row["event_id"],
        function_id=row["function_id"],
        replay_id=row["replay_id"] or None,
        run_id=row["run_id"],
        status=row["status"],
        skip_reason=row["skip_reason"],
        attempts=row["attempts"],
        next_attempt_at=time(row["due_at"]) if row["status"] in ("queued", "waiting") else None,
        error=stored(row["error"]),
    )


def run(row: Record) -> schemas.Run:
    """A run without its output."""
    return schemas.Run(
        id=row["id"],
        event_id=row["event_id"],
        event_name=row["event_name"],
        function_id=row["function_id"],
        version=version_of(row["queued_as"] or ""),
        status=row["status"],
        reason=_reason(row),
        attempts=row["attempts"],
        created_at=to_rfc3339(row["created_at"]),
        started_at=time(row["started_at"]),
        finished_at=time(row["finished_at"]),
        next_attempt_at=time(row["due_at"]) if row["status"] in ("queued", "waiting") else None,
        worker_id=row["worker_id"],
        error=stored(row["error"]),
        parent_run_id=row["parent_id"],
        progress=None if row["done"] is None else schemas.Progress(row["done"], row["total"], row["message"], to_rfc3339(row["at"])),
    )


def step(row: Record, tries: Sequence[Record], now: int, *, payload: bool) -> schemas.Step:
    """A step with its failed tries; a sleep is over when its time is."""
    slept = row["kind"] == "sleep" and row["due_at"] <= now
    finished_at = row["due_at"] if slept else row["finished_at"]
    made = schemas.Step(
        key=row["key"],
        kind=row["kind"],
        status="succeeded" if slept else row["status"],
        attempts=row["attempts"],
        started_at=to_rfc3339(row["started_at"]),
        finished_at=time(finished_at),
        due_at=time(row["due_at"]),
        duration_ms=None if finished_at is None else (finished_at - row["started_at"]) // 1000,
        subject=row["subject"],
        error=stored(row["error"]),
        attempt_list=[
            schemas.StepAttempt(one["number"], to_rfc3339(one["started_at"]), to_rfc3339(one["finished_at"]), stored(one["error"]))
            for one in tries
        ],
    )
    if payload:
        made.output = stored(row["output"])
    return made


def _reason(row: Record) -> str | None:
    if row["status"] in ("queued", "waiting") and row["paused_at"] is not None:
        return "paused"
    return "no_worker_offers_it" if row["held"] == 1 else row["reason"]


def attempt(row: Record) -> schemas.Attempt:
    """An ended attempt."""
    return schemas.Attempt(
        run_id=row["run_id"],
        number=row["number"],
        outcome=row["outcome"],
        worker_id=row["worker_id"],
        started_at=to_rfc3339(row["started_at"]),
        finished_at=to_rfc3339(row["finished_at"]),
        duration_ms=(row["finished_at"] - row["started_at"]) // 1000,
        error=stored(row["error"]),
    )


def request(row: Record) -> schemas.Request:
    """An inbound request without its body, and without its headers."""
    return schemas.Request(
        id=row["id"],
        source=row["source"],
        received_at=to_rfc3339(row["received_at"]),
        status=row["status"],
        reason=row["reason"],
        diagnosis=REMEDIES.get(row["reason"]) if row["reason"] else None,
        event_id=row["event_id"],
        method=row["method"],
        url=row["url"],
        body_bytes=row["body_bytes"],
        secret=row["secret_index"],
    )


def log_line(row: Record) -> schemas.LogLine:
    """A line that a run has logged."""
    return schemas.LogLine(
        at=to_rfc3339(row["at"]),
        level=row["level"],
        attempt=row["attempt"],
        fence=row["fence"],
        step=row["step"],
        message=row["message"],
    )


def function(app: str, spec: FunctionSpec, paused_at: int | None) -> schemas.Function:
    """A function as published."""
    return schemas.Function(
        id=spec.id,
        app=app,
        version=spec.version,
        on=list(spec.on),
        if_=spec.if_,
        retries=spec.retries,
        timeout_ms=None if spec.timeout_seconds is None else round(spec.timeout_seconds * 1000),
        paused_at=time(paused_at),
        origin=spec.origin,
        description=spec.description,
    )


def provider(found: Provider) -> schemas.Provider:
    """A provider."""
    return schemas.Provider(
        name=found.name,
        title=found.title or found.name,
        docs=found.docs,
        setup=found.setup,
        scheme=describe() if (describe := getattr(found.scheme, "describe", None)) else {"kind": type(found.scheme).__name__},
        type_at=found.type_header or found.type_at,
        id_at=found.id_at,
        events=sorted(kind.event_name for kind in found.events),
        samples=sorted(found.samples),
    )


def source(found: Source, url: str, now: int, uses: Mapping[int, int]) -> schemas.Source:
    """A source; of its secrets only their numbers, their times and whether they are live."""
    return schemas.Source(
        id=found.id,
        name=found.name,
        provider=found.provider.name,
        url=url,
        enabled=found.enabled,
        origin=found.origin,
        setup=found.provider.setup,
        samples=sorted(found.provider.samples),
        secrets=[
            schemas.Secret(
                n=secret.n,
                live=secret.lives(now),
                created_at=time(secret.created_at or None),
                expires_at=time(secret.expires_at),
                last_used_at=time(uses.get(secret.n)),
            )
            for secret in found.secrets
        ],
    )


def unserved(found: Unserved, url: str) -> schemas.Source:
    """A source that is kept and not served, and why."""
    return schemas.Source(
        id=found.id,
        name=found.name,
        provider=found.provider,
        url=url,
        enabled=False,
        origin=found.origin,
        setup="",
        samples=[],
        secrets=[],
        left_out=found.why,
    )


def key(row: Record) -> schemas.Key:
    """An API key, without the key."""
    return schemas.Key(
        id=row["id"],
        name=row["name"],
        scopes=row["scopes"].split(","),
        created_at=to_rfc3339(row["created_at"]),
        expires_at=time(row["expires_at"]),
        last_used_at=time(row["last_used_at"]),
    )


def stored(raw: bytes | None) -> Any:
    """Stored JSON, verbatim; what other readers would not take for JSON, such as NaN, as a text."""
    if raw is None:
        return None
    text = bytes(raw)
    if codec.is_strict(text):
        return msgspec.Raw(text)
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")


def time(micros: int | None) -> str | None:
    """A stored time; None for none, and for one that never comes."""
    return None if micros is None or micros >= NEVER else to_rfc3339(micros)
