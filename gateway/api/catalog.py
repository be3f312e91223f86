"""`/providers` and `/event-types`: what can come, and what it looks like."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from litestar import Response, get

from gateway import codec
from gateway.api import describe, present, schemas
from gateway.api.deps import Deps
from gateway.api.example import example
from gateway.api.filters import filters
from gateway.core.match import Matcher
from gateway.errors import NotFound
from gateway.sdk.provider import Provider, read
from gateway.sdk.scheme import Inbound


@get("/providers", tags=["sources"], responses=describe.answers(schemas.ProviderList))
async def list_providers(deps: Deps) -> Response[bytes]:
    """The providers that were found."""
    return present.json(schemas.ProviderList([present.provider(provider) for provider in deps.providers.values()]))


@get("/providers/{name:str}", tags=["sources"], responses=describe.answers(schemas.Provider, 404))
async def get_provider(deps: Deps, name: str) -> Response[bytes]:
    """One provider: how it signs, where type and id are, its samples."""
    if name not in deps.providers:
        raise NotFound(f"There is no provider {name!r}.")
    return present.json(present.provider(deps.providers[name]))


@get("/event-types", tags=["events"], responses=describe.answers(schemas.EventTypeList))
async def list_event_types(deps: Deps) -> Response[bytes]:
    """Every event name that a provider or a function declares, or that has arrived."""
    arrived = await asyncio.to_thread(deps.reads.event_names)
    matcher = _matcher(deps)
    return present.json(schemas.EventTypeList([_event_type(deps, matcher, name) for name in sorted({*_declared(deps), *arrived})]))


@get("/event-types/{name:path}", tags=["events"], responses=describe.answers(schemas.EventType, 404))
async def get_event_type(deps: Deps, name: str) -> Response[bytes]:
    """One event name: the JSON Schema of its data, a sample, who listens, and how many are stored."""
    name = name.removeprefix("/")
    count, capped = await asyncio.to_thread(deps.reads.count, "events", filters(1, None, {"e.name": [name.replace("*", "")]}))
    if name not in _declared(deps) and not count:
        raise NotFound(f"There is no event type {name!r}.")
    schema, shown = _schema(deps, name), _event_type(deps, _matcher(deps), name)
    sample = _sample(deps, name)
    if sample is None and schema:
        sample = example(schema)
    return present.json(msgspec.structs.replace(shown, schema=schema, sample=sample, count=count, capped=capped))


def _matcher(deps: Deps) -> Matcher:
    return Matcher(msgspec.structs.replace(spec, if_=None) for spec in deps.live.fanout.specs.values())


def _event_type(deps: Deps, matcher: Matcher, name: str) -> schemas.EventType:
    listens = [match.function_id for match in matcher.match(name, dict)]
    provider = name.partition("/")[0]
    return schemas.EventType(name, provider if provider in deps.providers else None, listens)


def _declared(deps: Deps) -> set[str]:
    by_functions = {event.name for manifest in deps.live.fanout.apps.values() for event in manifest.events}
    by_providers = {kind.event_name for provider in deps.providers.values() for kind in provider.events}
    samples = {f"{provider.name}/{type_}" for provider in deps.providers.values() for type_ in provider.samples}
    return by_functions | by_providers | samples


def _schema(deps: Deps, name: str) -> dict[str, Any] | None:
    for provider in deps.providers.values():
        for kind in provider.events:
            if kind.event_name == name:
                return kind.data_schema()
    found = [event.schema for manifest in deps.live.fanout.apps.values() for event in manifest.events if event.name == name]
    return codec.loads(found[0]) if found else None


def _sample(deps: Deps, name: str) -> object:
    provider, _, type_ = name.partition("/")
    if provider in deps.providers and type_ in deps.providers[provider].samples:
        return _sample_data(deps.providers[provider], type_)
    declared = (event.sample for manifest in deps.live.fanout.apps.values() for event in manifest.events if event.name == name)
    return next((sample for sample in declared if bytes(sample) != b"null"), None)


def _sample_data(provider: Provider, type_: str) -> object:
    sample = provider.sample(type_)
    headers = [(name.lower(), value) for name, value in sample.headers]
    path = read(provider, Inbound(method="POST", url="/", headers=headers, body=sample.body)).data_path
    try:
        return present.stored(codec.member(sample.body, path))
    except ValueError:
        return None
