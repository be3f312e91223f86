"""`/keys`: API keys, their scopes and their end. A key is shown once, when it is made."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from litestar import Response, delete, get, post

from gateway.api import describe, present, schemas
from gateway.api.deps import SCOPES, Deps, hash_key
from gateway.api.filters import instant
from gateway.errors import NotFound
from gateway.ids import new_api_key, new_id
from gateway.store.access import RevokeKey, SaveKey


@get("/keys", tags=["keys"], opt={"scope": "admin"}, responses=describe.answers(schemas.KeyList))
async def list_keys(deps: Deps) -> Response[bytes]:
    """Every API key that was made and not revoked; never the keys themselves."""
    rows = await asyncio.to_thread(deps.reads.api_keys)
    return present.json(schemas.KeyList([present.key(row) for row in rows]))


@post(
    "/keys",
    tags=["keys"],
    opt={"scope": "admin"},
    status_code=201,
    responses=describe.answers(schemas.Key, 409, 413, 415, 422, status=201),
)
async def create_key(deps: Deps, data: schemas.NewKey) -> Response[bytes]:
    """Make an API key. The answer has it in `key`; it cannot be shown again."""
    expires_at = None if data.expires_at is None else instant(data.expires_at, "expires_at")
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
    return present.json(msgspec.structs.replace(present.key(row), key=key), 201)


@delete(
    "/keys/{key_id:str}",
    tags=["keys"],
    opt={"scope": "admin"},
    status_code=204,
    responses=describe.answers(None, 404, status=204),
)
async def revoke_key(deps: Deps, key_id: str) -> None:
    """Make a key void, here at once and on every other gateway within a second."""
    if "\0" in key_id or not await deps.journal.commit(RevokeKey(key_id)):
        raise NotFound(f"There is no API key with the id {key_id!r}.")
    await deps.refresh()
