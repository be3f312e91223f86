"""What the handlers work with."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from gateway.clock import Clock
from gateway.core.spec import BrokenModule
from gateway.errors import Forbidden, InvalidRequest, Unauthorized
from gateway.ingest.receive import Live, Receiver
from gateway.sdk.provider import Provider
from gateway.settings import Settings
from gateway.store.cipher import Cipher
from gateway.store.journal import Journal
from gateway.store.reads import Reads
from gateway.telemetry import Telemetry

LOOPBACK = {"127.0.0.1", "localhost", "[::1]"}
SCOPES = ("read", "payload:read", "send", "replay", "admin")


@dataclass(frozen=True, kw_only=True)
class Deps:
    """One gateway's parts. `keys` are the SHA-256 of the admin keys that need no row."""

    settings: Settings
    cipher: Cipher
    journal: Journal
    reads: Reads
    refresh: Callable[[], Awaitable[None]]
    live: Live
    receiver: Receiver
    providers: dict[str, Provider]
    broken: Callable[[], list[BrokenModule]]
    keys: tuple[bytes, ...]
    clock: Clock
    telemetry: Telemetry


def hash_key(key: str) -> bytes:
    """An API key as it is stored: SHA-256, since the key is 256 random bits."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def require_key(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Litestar guard: the call's key must have the scope in the handler's `opt`, or `admin`."""
    deps: Deps = connection.app.state.deps
    if deps.settings.open_api:
        _require_loopback(connection)
        return
    scheme, _, key = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise Unauthorized()
    hashed = hash_key(key.strip())
    if any([hmac.compare_digest(hashed, known) for known in deps.keys]):
        return
    now = deps.clock()
    found = deps.live.keys.get(hashed)
    if found is None:
        raise Unauthorized("This API key is not known here.")
    if found.expires_at is not None and found.expires_at <= now:
        raise Unauthorized("This API key has expired; make another with: tidegate keys add NAME")
    deps.live.uses.keys[found.id] = now
    needed = handler.opt.get("scope", "read")
    if not {needed, "admin"} & found.scopes:
        raise Forbidden(f"This call needs an API key with the scope `{needed}`; this one has: {', '.join(sorted(found.scopes))}.")


def _require_loopback(connection: ASGIConnection[Any, Any, Any, Any]) -> None:
    """Without keys, only this machine's own programs may call: no page of a browser that was led here by a name or a form."""
    host = connection.headers.get("host", "").rpartition(":")[0] or connection.headers.get("host", "")
    if host not in LOOPBACK or connection.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise Forbidden("Without API keys only programs on this machine may call; see `tidegate dev --help`.")


async def refuse_unknown_parameters(request: Request[Any, Any, Any]) -> None:
    """Litestar before-request hook: a misspelled filter must not be ignored."""
    known = {parameter.alias for parameter in _query_parameters(request)}
    for name in request.query_params:
        if name not in known:
            choices = f"it takes {', '.join(sorted(known))}" if known else "it takes none"
            raise InvalidRequest(f"There is no parameter {name!r} here; {choices}.", code="unknown_parameter")


@dataclass(frozen=True, slots=True)
class _Parameter:
    alias: str


def _query_parameters(request: Request[Any, Any, Any]) -> list[_Parameter]:
    handler = request.route_handler
    names = handler.parsed_fn_signature.parameters
    path = set(request.path_params)
    return [_Parameter(name.rstrip("_")) for name in names if name not in path and name not in ("deps", "request", "data")]
