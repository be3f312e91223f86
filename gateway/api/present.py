"""Rows as the API's JSON: one function for each resource."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from litestar import Response

from gateway import codec
from gateway.clock import NEVER, to_rfc3339
from gateway.core.spec import FunctionSpec
from gateway.ingest.sources import Source
from gateway.sdk.scheme import REMEDIES
from gateway.store.reads import Page

Record = Mapping[str, Any]


def json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response[bytes]:
    """A JSON response; stored JSON goes through as it is."""
    return Response(codec.dumps(value), status_code=status, media_type="application/json", headers=dict(headers or {}))


def page(found: Page, present: Callable[[Record], Any]) -> Response[bytes]:
    """A page of a list."""
    return json(
        {
            "data": [present(row) for row in found.rows],
            "next_cursor": found.next_cursor,
            "prev_cursor": found.prev_cursor,
            "has_more": found.has_more,
        }
    )


def event(row: Record) -> dict[str, Any]:
    """An event without its data."""
    return {
        "id": row["id"],
        "name": row["name"],
        "source": row["source"],
        "key": row["key"],
        "occurred_at": _time(row["occurred_at"]),
        "received_at": _time(row["received_at"]),
        "request_id": row["request_id"],
        "attributes": stored(row["attributes"]),
        "traceparent": row["traceparent"],
    }


def delivery(event_id: str, row: Record) -> dict[str, Any]:
    """What became of an event for one function."""
    return {
        "event_id": event_id,
        "function_id": row["function_id"],
        "replay_id": row["replay_id"] or None,
        "run_id": row["run_id"],
        "status": row["status"],
        "skip_reason": row["skip_reason"],
        "attempts": row["attempts"],
        "next_attempt_at": _time(row["due_at"]) if row["status"] in ("queued", "waiting") else None,
        "error": stored(row["error"]),
    }


def run(row: Record) -> dict[str, Any]:
    """A run."""
    waiting = row["status"] in ("queued", "waiting")
    return {
        "id": row["id"],
        "event_id": row["event_id"],
        "event_name": row["event_name"],
        "function_id": row["function_id"],
        "status": row["status"],
        "reason": "no_worker_offers_it" if row["held"] else row["reason"],
        "attempts": row["attempts"],
        "created_at": _time(row["created_at"]),
        "started_at": _time(row["started_at"]),
        "finished_at": _time(row["finished_at"]),
        "next_attempt_at": _time(row["due_at"]) if waiting else None,
        "worker_id": row["worker_id"],
        "output": stored(row["output"]),
        "error": stored(row["error"]),
    }


def attempt(row: Record) -> dict[str, Any]:
    """An ended attempt."""
    return {
        "run_id": row["run_id"],
        "number": row["number"],
        "outcome": row["outcome"],
        "worker_id": row["worker_id"],
        "started_at": _time(row["started_at"]),
        "finished_at": _time(row["finished_at"]),
        "duration_ms": (row["finished_at"] - row["started_at"]) // 1000,
        "error": stored(row["error"]),
    }


def request(row: Record) -> dict[str, Any]:
    """An inbound request without its body."""
    shown = {
        "id": row["id"],
        "source": row["source"],
        "received_at": _time(row["received_at"]),
        "status": row["status"],
        "reason": row["reason"],
        "diagnosis": REMEDIES.get(row["reason"]) if row["reason"] else None,
        "event_id": row["event_id"],
        "method": row["method"],
        "url": row["url"],
        "body_bytes": row["body_bytes"],
        "secret": row["secret_index"],
    }
    return {**shown, "headers": stored(row["headers"])} if "headers" in row else shown


def function(app: str, spec: FunctionSpec) -> dict[str, Any]:
    """A function as published."""
    return {
        "id": spec.id,
        "app": app,
        "on": spec.on,
        "if": spec.if_,
        "retries": spec.retries,
        "timeout_ms": None if spec.timeout_seconds is None else round(spec.timeout_seconds * 1000),
        "origin": spec.origin,
        "description": spec.description,
    }


def source(source: Source, url: str, now: int, uses: Mapping[int, int]) -> dict[str, Any]:
    """A source; of its secrets only their numbers, their times and whether they are live."""
    return {
        "id": source.id,
        "name": source.name,
        "provider": source.provider.name,
        "url": url,
        "enabled": source.enabled,
        "origin": source.origin,
        "setup": source.provider.setup,
        "secrets": [
            {
                "n": secret.n,
                "live": secret.lives(now),
                "created_at": _time(secret.created_at or None),
                "expires_at": _time(secret.expires_at),
                "last_used_at": _time(uses.get(secret.n)),
            }
            for secret in source.secrets
        ],
    }


def key(row: Record) -> dict[str, Any]:
    """An API key, without the key."""
    return {
        "id": row["id"],
        "name": row["name"],
        "scopes": row["scopes"].split(","),
        "created_at": _time(row["created_at"]),
        "expires_at": _time(row["expires_at"]),
        "last_used_at": _time(row["last_used_at"]),
    }


def stored(raw: bytes | None) -> Any:
    """Stored JSON, verbatim."""
    if raw is None:
        return None
    try:
        bytes(raw).decode()
    except UnicodeDecodeError:
        return bytes(raw).decode("latin-1")
    return msgspec.Raw(bytes(raw))


def _time(micros: int | None) -> str | None:
    return None if micros is None or micros >= NEVER else to_rfc3339(micros)
