"""`/functions` and `/providers`: what this gateway has."""

from __future__ import annotations

from typing import Any

from litestar import Response, get

from gateway.api import present
from gateway.api.deps import Deps
from gateway.errors import NotFound
from gateway.sdk.provider import Provider


@get("/functions")
async def list_functions(deps: Deps) -> Response[bytes]:
    """Every function that somebody offers, as this gateway knows them: what is listed here gets the next event."""
    apps = deps.live.fanout.apps
    return present.json({"data": [present.function(app, spec) for app, manifest in apps.items() for spec in manifest.specs]})


@get("/functions/{function_id:str}")
async def get_function(deps: Deps, function_id: str) -> Response[bytes]:
    """One function."""
    for app, manifest in deps.live.fanout.apps.items():
        for spec in manifest.specs:
            if spec.id == function_id:
                return present.json(present.function(app, spec))
    raise NotFound(f"There is no function {function_id!r}.")


@get("/providers")
async def list_providers(deps: Deps) -> Response[bytes]:
    """The providers that were found."""
    return present.json({"data": [_provider(provider) for provider in deps.providers.values()]})


@get("/providers/{name:str}")
async def get_provider(deps: Deps, name: str) -> Response[bytes]:
    """One provider: how it signs, where type and id are, its samples."""
    if name not in deps.providers:
        raise NotFound(f"There is no provider {name!r}.")
    return present.json(_provider(deps.providers[name]))


def _provider(provider: Provider) -> dict[str, Any]:
    return {
        "name": provider.name,
        "title": provider.title or provider.name,
        "docs": provider.docs,
        "setup": provider.setup,
        "scheme": str(provider.scheme),
        "type_at": provider.type_header or provider.type_at,
        "id_at": provider.id_at,
        "events": sorted(kind.event_name for kind in provider.events),
        "samples": sorted(provider.samples),
    }
