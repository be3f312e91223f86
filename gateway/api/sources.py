"""`/sources`: endpoints and their secrets, changed while they live. What was configured is shown, and changed where it stands."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from litestar import Request, Response, delete, get, patch, post

from gateway.api import describe, present, schemas
from gateway.api.deps import Deps
from gateway.api.filters import instant
from gateway.clock import SECOND
from gateway.errors import Conflict, InvalidRequest, NotFound, PreconditionFailed, Unavailable
from gateway.ids import new_id
from gateway.ingest.receive import Answer
from gateway.ingest.sources import Secret, Source, Unserved, seal
from gateway.sdk.provider import Provider
from gateway.sdk.scheme import Inbound, fault_of
from gateway.store.access import BY_API, ChangeSource, CreateSource, DeleteSource

Call = Request[Any, Any, Any]


@get("/sources", tags=["sources"], responses=describe.answers(schemas.SourceList))
async def list_sources(deps: Deps) -> Response[bytes]:
    """The sources of this gateway, those it keeps and does not serve too; never their secrets."""
    uses = await asyncio.to_thread(deps.reads.secret_uses)
    return present.json(schemas.SourceList([_show(deps, source, uses) for source in _all(deps)]))


@get("/sources/{source_id:str}", tags=["sources"], responses=describe.answers(schemas.Source, 404))
async def get_source(deps: Deps, source_id: str) -> Response[bytes]:
    """One source, by id or name, with what to enter at the third party."""
    return await _answer(deps, _find(deps, source_id))


@post(
    "/sources",
    tags=["sources"],
    opt={"scope": "admin"},
    status_code=201,
    responses=describe.answers(schemas.Source, 404, 409, 413, 415, 422, status=201),
)
async def create_source(deps: Deps, data: schemas.NewSource, force: bool = False) -> Response[bytes]:
    """Make a source, or take over one that is not served. It is served here at once, by every other gateway within a second.

    One that another live gateway may serve is taken over with `force=true` only.
    """
    if data.name == BY_API:
        raise Conflict("The source `api` is what events sent through the API come from.")
    if data.provider not in deps.providers:
        known = ", ".join(sorted(deps.providers)) or "none"
        raise NotFound(f"There is no provider {data.provider!r}; there are: {known}. Is its file newer than the gateway? Start that again.")
    now = deps.clock()
    for n, text in enumerate(data.secrets):
        _refuse_fault(deps.providers[data.provider], text, f"/secrets/{n}")
    secrets = [Secret(n, text, now) for n, text in enumerate(data.secrets)]
    sealed = seal(deps.cipher, data.name, secrets)
    left = deps.live.unserved.get(data.name)
    if left is not None and not force:
        await _refuse_if_shared(deps, left)
    instead_of = None if left is None else (left.id, left.version)
    if not await deps.journal.commit(CreateSource(new_id("src"), data.name, data.provider, sealed, now, instead_of)):
        raise Conflict(f"There is a source {data.name!r} already.")
    await deps.refresh()
    return await _answer(deps, _find(deps, data.name), 201)


@patch(
    "/sources/{source_id:str}",
    tags=["sources"],
    opt={"scope": "admin"},
    responses=describe.answers(schemas.Source, 404, 409, 412, 413, 415),
)
async def change_source(deps: Deps, request: Call, source_id: str, data: schemas.SourceChange) -> Response[bytes]:
    """Enable or disable a source; a disabled one answers 404, as an unknown one does."""
    source = _editable(deps, request, source_id)
    return await _change(deps, source, source.secrets, data.enabled)


@post(
    "/sources/{source_id:str}/enable",
    tags=["sources"],
    opt={"scope": "admin"},
    status_code=200,
    responses=describe.answers(schemas.Source, 404, 409, 412, 422),
)
async def enable_source(deps: Deps, request: Call, source_id: str) -> Response[bytes]:
    """Serve a source again."""
    source = _editable(deps, request, source_id)
    return await _change(deps, source, source.secrets, True)


@post(
    "/sources/{source_id:str}/disable",
    tags=["sources"],
    opt={"scope": "admin"},
    status_code=200,
    responses=describe.answers(schemas.Source, 404, 409, 412, 422),
)
async def disable_source(deps: Deps, request: Call, source_id: str) -> Response[bytes]:
    """Stop serving a source, and keep it."""
    source = _editable(deps, request, source_id)
    return await _change(deps, source, source.secrets, False)


@delete(
    "/sources/{source_id:str}",
    tags=["sources"],
    opt={"scope": "admin"},
    status_code=204,
    responses=describe.answers(None, 404, 409, 412, status=204),
)
async def delete_source(deps: Deps, request: Call, source_id: str, force: bool = False) -> None:
    """Remove a source and its secrets; what it received stays.

    One that is not served here, and that another live gateway may serve, is removed with `force=true` only.
    """
    source = _find(deps, source_id)
    _refuse_unchangeable(request, source)
    if isinstance(source, Unserved) and not force:
        await _refuse_if_shared(deps, source)
    if not await deps.journal.commit(DeleteSource(source.id, source.version)):
        raise Conflict("Somebody else has just changed this source; look, and try again.")
    await deps.refresh()


@post(
    "/sources/{source_id:str}/secrets",
    tags=["sources"],
    opt={"scope": "admin"},
    status_code=201,
    responses=describe.answers(schemas.Source, 404, 409, 412, 413, 415, 422, status=201),
)
async def add_source_secret(deps: Deps, request: Call, source_id: str, data: schemas.NewSecret) -> Response[bytes]:
    """Add a secret, in effect here at once; with `expire_others_at` the others end then."""
    source, now = _editable(deps, request, source_id), deps.clock()
    text, end, others = data.secret, _end(data.expires_at, "expires_at"), _end(data.expire_others_at, "expire_others_at")
    _refuse_fault(source.provider, text, "/secret")
    if any(secret.text == text for secret in source.secrets):
        raise Conflict("The source has this secret already.")
    if len(source.secrets) >= schemas.MAX_SECRETS:
        raise Conflict(f"A source has at most {schemas.MAX_SECRETS} secrets; remove one first.")
    ends = [secret.expires_at if others is None else min(others, secret.expires_at or others) for secret in source.secrets]
    kept = [msgspec.structs.replace(secret, expires_at=at) for secret, at in zip(source.secrets, ends, strict=True)]
    number = max((secret.n for secret in source.secrets), default=-1) + 1
    return await _change(deps, source, [*kept, Secret(number, text, now, end)], source.enabled, 201)


@patch(
    "/sources/{source_id:str}/secrets/{n:int}",
    tags=["sources"],
    opt={"scope": "admin"},
    responses=describe.answers(schemas.Source, 404, 409, 412, 413, 415),
)
async def change_source_secret(deps: Deps, request: Call, source_id: str, n: int, data: schemas.SecretChange) -> Response[bytes]:
    """Say when a secret ends."""
    source = _editable(deps, request, source_id)
    _secret(source, n)
    end = _end(data.expires_at, "expires_at")
    secrets = [msgspec.structs.replace(s, expires_at=end) if s.n == n else s for s in source.secrets]
    return await _change(deps, source, secrets, source.enabled)


@delete(
    "/sources/{source_id:str}/secrets/{n:int}",
    tags=["sources"],
    opt={"scope": "admin"},
    status_code=200,
    responses=describe.answers(schemas.Source, 404, 409, 412),
)
async def remove_source_secret(deps: Deps, request: Call, source_id: str, n: int) -> Response[bytes]:
    """Remove a secret at once."""
    source = _editable(deps, request, source_id)
    _secret(source, n)
    return await _change(deps, source, [secret for secret in source.secrets if secret.n != n], source.enabled)


@post(
    "/sources/{source_id:str}/test",
    tags=["sources"],
    opt={"scope": "send"},
    status_code=200,
    responses=describe.answers(schemas.Sent, 404, 409, 413, 415, 422),
)
async def test_source(deps: Deps, source_id: str, data: schemas.Sample) -> Response[bytes]:
    """Sign one of the provider's samples with the source's newest secret and take it in, as if the third party had sent it."""
    source, now = _served(deps, source_id), deps.clock()
    secret = source.newest(now)
    if data.type not in source.provider.samples:
        known = ", ".join(sorted(source.provider.samples)) or "none"
        raise NotFound(f"{source.provider.name} has no sample {data.type!r}; there are: {known}.")
    if secret is None or not source.enabled:
        raise Conflict("The source is disabled, or has no secret to sign with.")
    sample = source.provider.sample(data.type)
    signed = source.provider.scheme.sign(sample.body, secret.text, now // SECOND, sample.headers)
    headers = [(name.lower(), value) for name, value in [*sample.headers, *signed]]
    inbound = Inbound(method="POST", url=f"/webhooks/{source.name}", headers=headers, body=sample.body)
    answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    deps.receiver.receive(source, inbound, new_id("req"), answered.set_result)
    answer = await answered
    if answer.status != 200:
        raise Unavailable(f"the sample was answered with {answer.status}")
    return Response(answer.body, media_type="application/json")


def _all(deps: Deps) -> list[Source | Unserved]:
    return sorted([*deps.live.sources.values(), *deps.live.unserved.values()], key=lambda source: source.name)


def _find(deps: Deps, source_id: str) -> Source | Unserved:
    for source in _all(deps):
        if source_id in (source.id, source.name):
            return source
    raise NotFound(f"There is no source {source_id!r}.")


def _served(deps: Deps, source_id: str) -> Source:
    source = _find(deps, source_id)
    if isinstance(source, Unserved):
        raise Conflict(f"This source is not served: {source.why}. Take it over by making it anew, or delete it.")
    return source


def _editable(deps: Deps, request: Call, source_id: str) -> Source:
    source = _served(deps, source_id)
    _refuse_unchangeable(request, source)
    return source


def _refuse_unchangeable(request: Call, source: Source | Unserved) -> None:
    if isinstance(source, Source) and source.origin != BY_API:
        raise Conflict(f"This source is configured by {source.origin}; change it there and restart the gateway.")
    wanted = request.headers.get("if-match")
    if wanted is not None and wanted.strip() not in ("*", _etag(source)):
        raise PreconditionFailed()


async def _refuse_if_shared(deps: Deps, source: Unserved) -> None:
    """What nothing configures here, another gateway may well serve: it has its own environment, and its own providers."""
    alive = await asyncio.to_thread(deps.reads.processes, deps.clock())
    others = [f"{row['host']}, process {row['pid']}" for row in alive if row["kind"] == "gateway" and row["id"] != deps.process_id]
    if others:
        raise Conflict(
            f"The source {source.name!r} is not served here, and may be by another gateway that is alive ({'; '.join(others)})."
            " Look there; if it is not, do this again with `force=true`, or `--force` at the command line."
        )


def _secret(source: Source, n: int) -> Secret:
    for secret in source.secrets:
        if secret.n == n:
            return secret
    raise NotFound(f"The source has no secret {n}.")


def _end(text: str | None, name: str) -> int | None:
    """When a secret ends; a time in the past is now."""
    return None if text is None else instant(text, name)


def _refuse_fault(provider: Provider, secret: str, pointer: str) -> None:
    fault = fault_of(provider.scheme, secret)
    if fault is not None:
        raise InvalidRequest(f"This is no secret of {provider.title or provider.name}: {fault}.", pointer=pointer)


async def _change(deps: Deps, source: Source, secrets: Any, enabled: bool, status: int = 200) -> Response[bytes]:
    change = ChangeSource(source.id, source.version, seal(deps.cipher, source.name, list(secrets)), enabled)
    if not await deps.journal.commit(change):
        raise Conflict("Somebody else has just changed this source; look, and try again.")
    await deps.refresh()
    return await _answer(deps, _find(deps, source.name), status)


async def _answer(deps: Deps, source: Source | Unserved, status: int = 200) -> Response[bytes]:
    uses = await asyncio.to_thread(deps.reads.secret_uses)
    response = present.json(_show(deps, source, uses), status)
    response.headers["ETag"] = _etag(source)
    return response


def _etag(source: Source | Unserved) -> str:
    return f'"{source.version}"'


def _show(deps: Deps, source: Source | Unserved, uses: Any) -> schemas.Source:
    url = f"{deps.settings.inbound_url}/webhooks/{source.name}"
    if isinstance(source, Unserved):
        return present.unserved(source, url)
    # A number is given anew once the secret that had it last is removed; what was noted before is of that one.
    made = {secret.n: secret.created_at for secret in source.secrets}
    used = {n: at for (id_, n), at in uses.items() if id_ == source.id and at >= made.get(n, 0)}
    return present.source(source, url, deps.clock(), used)
