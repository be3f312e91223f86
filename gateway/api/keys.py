"""`/keys`: API keys, their scopes and their end. A key is shown once, when it is made."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Response, delete, get, post

from gateway.api import present
from gateway.api.deps import SCOPES, Deps, hash_key
from gateway.clock import from_datetime
from gateway.errors import InvalidRequest, NotFound
from gateway.ids import new_api_key, new_id
from gateway.store.access import RevokeKey, SaveKey


class NewKey(msgspec.Struct, forbid_unknown_fields=True):
    """An API key to make: what it is for, what it may do (`admin` includes all), and until when."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    scopes: Annotated[list[str], msgspec.Meta(min_length=1, max_length=5)]
    expires_at: datetime | None = None


@get("/keys", opt={"scope": "admin"})
async def list_keys(deps: Deps) -> Response[bytes]:
    """Every API key that was made and not revoked; never the keys themselves."""
    rows = await asyncio.to_thread(deps.reads.api_keys)
    return present.json({"data": [present.key(row) for row in rows]})


@post("/keys", opt={"scope": "admin"}, status_code=201)
async def create_key(deps: Deps, data: NewKey) -> Response[bytes]:
    """Make an API key. The answer has it in `key`; it cannot be shown again."""
    unknown = [scope for scope in data.scopes if scope not in SCOPES]
    if unknown:
        raise InvalidRequest(f"There is no scope {unknown[0]!r}; there are {', '.join(SCOPES)}.", pointer="/scopes")
    expires_at = future(deps, data.expires_at)
    key, key_id, now = new_api_key(), new_id("key"), deps.clock()
    scopes = ",".join(scope for scope in SCOPES if scope in data.scopes)
    await deps.journal.commit(SaveKey(key_id, data.name, hash_key(key), scopes, now, expires_at))
    await deps.refresh()
    row: dict[str, Any] = {
        "id": key_id,
        "name": data.name,
        "scopes": scopes,
        "created_at": now,
        "expires_at": expires_at,
        "last_used_at": None,
    }
    return present.json({**present.key(row), "key": key}, 201)


@delete("/keys/{key_id:str}", opt={"scope": "admin"}, status_code=204)
async def revoke_key(deps: Deps, key_id: str) -> None:
    """Make a key void, here at once and on every other gateway within a second."""
    if "\0" in key_id or not await deps.journal.commit(RevokeKey(key_id)):
        raise NotFound(f"There is no API key with the id {key_id!r}.")
    await deps.refresh()


def future(deps: Deps, when: datetime | None) -> int | None:
    """A time to come as it is stored. Raises InvalidRequest for one without a time zone, or in the past."""
    if when is None:
        return None
    if when.tzinfo is None:
        raise InvalidRequest("`expires_at` needs a time zone, as in 2026-11-24T08:00:00Z.", pointer="/expires_at")
    micros = from_datetime(when)
    if micros <= deps.clock():
        raise InvalidRequest("`expires_at` lies in the past.", pointer="/expires_at")
    return micros
