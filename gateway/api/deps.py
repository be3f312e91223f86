"""What the handlers work with."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from gateway.clock import Clock
from gateway.core.spec import BrokenModule
from gateway.errors import Forbidden, InvalidRequest, Unauthorized
from gateway.ingest.receive import Live, Receiver
from gateway.ingest.reprocess import Reprocessor
from gateway.sdk.provider import Provider
from gateway.settings import Settings
from gateway.store.cipher import Cipher
from gateway.store.journal import Journal
from gateway.store.reads import Reads
from gateway.telemetry import Telemetry

Connection = ASGIConnection[Any, Any, Any, Any]

LOOPBACK = {"127.0.0.1", "localhost", "[::1]"}
SCOPES = ("read", "payload:read", "send", "replay", "admin")


@dataclass(frozen=True, kw_only=True)
class Deps:
    """One gateway's parts. `keys` are the SHA-256 of the admin keys that need no row; `process_id` is the gateway's own."""

    process_id: str
    settings: Settings
    cipher: Cipher
    journal: Journal
    reads: Reads
    refresh: Callable[[], Awaitable[None]]
    live: Live
    receiver: Receiver
    reprocessor: Reprocessor
    providers: dict[str, Provider]
    broken: Callable[[], list[BrokenModule]]
    keys: tuple[bytes, ...]
    clock: Clock
    telemetry: Telemetry


def hash_key(key: str) -> bytes:
    """An API key as it is stored: SHA-256, since the key is 256 random bits."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def require_key(connection: Connection, handler: BaseRouteHandler) -> None:
    """Litestar guard: the call's key must have the scope in the handler's `opt` (`read` if it names none), or `admin`."""
    authorise(connection, handler.opt.get("scope", "read"))


def authorise(connection: Connection, scope: str) -> None:
    """Raises Unauthorized or Forbidden unless the call's key may do what `scope` names."""
    deps: Deps = connection.app.state.deps
    if deps.settings.open_api:
        _require_loopback(connection)
        return
    hashed = key_of(connection.headers.get("authorization", ""))
    if hashed is None:
        raise Unauthorized()
    if any([hmac.compare_digest(hashed, known) for known in deps.keys]):
        return
    now = deps.clock()
    found = deps.live.keys.get(hashed)
    if found is None:
        raise Unauthorized("This API key is not known here.")
    if found.expires_at is not None and found.expires_at <= now:
        raise Unauthorized("This API key has expired; make another with: tidegate keys add NAME")
    deps.live.uses.keys[found.id] = now
    if not {scope, "admin"} & found.scopes:
        raise Forbidden(f"This call needs an API key with the scope `{scope}`; this one has: {', '.join(sorted(found.scopes))}.")


def is_known(deps: Deps, hashed: bytes) -> bool:
    """Whether an API key may be used for anything at all, or none is needed."""
    found = deps.live.keys.get(hashed)
    lives = found is not None and (found.expires_at is None or found.expires_at > deps.clock())
    return lives or hashed in deps.keys or deps.settings.open_api


def may(connection: Connection, scope: str) -> bool:
    """Whether the call's key may do what `scope` names."""
    try:
        authorise(connection, scope)
    except (Unauthorized, Forbidden):
        return False
    return True


def key_of(authorization: str) -> bytes | None:
    """The hash of the key in an `Authorization` header; None where there is none."""
    scheme, _, key = authorization.partition(" ")
    return hash_key(key.strip()) if scheme.lower() == "bearer" and key.strip() else None


def _require_loopback(connection: Connection) -> None:
    """Without keys, only this machine's own programs may call: no page of a browser that was led here by a name or a form."""
    host = connection.headers.get("host", "").rpartition(":")[0] or connection.headers.get("host", "")
    origin = urlsplit(connection.headers.get("origin", "http://localhost")).netloc
    foreign = connection.headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
    if foreign or host not in LOOPBACK or re.sub(r":\d+$", "", origin) not in LOOPBACK:
        raise Forbidden("Without API keys only programs on this machine may call; see `tidegate dev --help`.")


async def refuse_unknown_parameters(request: Request[Any, Any, Any]) -> None:
    """Litestar before-request hook: a misspelled filter must not be ignored."""
    known = _query_parameters(request)
    for name in request.query_params:
        if name not in known:
            choices = f"it takes {', '.join(sorted(known))}" if known else "it takes none"
            raise InvalidRequest(f"There is no parameter {name!r} here; {choices}.", code="unknown_parameter")


def _query_parameters(request: Request[Any, Any, Any]) -> set[str]:
    names = request.route_handler.parsed_fn_signature.parameters
    return {name for name in names if name not in request.path_params and name not in ("deps", "request", "data")}
