"""`tidegate doctor`: looks at everything from here, with or without a running gateway."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import typer

from gateway.cli.client import own_key, reached_at
from gateway.cli.output import counted, print_json
from gateway.clock import system_clock
from gateway.errors import TidegateError
from gateway.registry import load_functions, load_providers, shown
from gateway.sdk.scheme import fault_of
from gateway.settings import Settings
from gateway.store import schema
from gateway.store.database import open_database
from gateway.store.reads import Reads, Record

Finding = tuple[bool, str]


def examine(settings: Settings, as_json: bool) -> int:
    """Print a line for each thing looked at; returns 1 when something is wrong."""
    findings = [*_modules(settings), *_database(settings), *_gateway(settings)]
    if as_json:
        print_json({"data": [{"ok": good, "text": text} for good, text in findings]})
    else:
        for good, text in findings:
            typer.echo(f"{'ok   ' if good else 'WRONG'}  {text}")
    return 0 if all(good for good, _ in findings) else 1


def _modules(settings: Settings) -> Iterator[Finding]:
    providers, functions = load_providers(settings.providers), load_functions(settings.functions)
    yield True, f"{len(providers.providers)} providers, {len(functions.functions)} functions"
    for found in [*providers.broken, *functions.broken]:
        yield False, f"{shown(found.file)}: {found.message}"
    for noun, registry in (("provider", providers), ("function", functions)):
        for file in registry.idle:
            yield True, f"{shown(file)} declares no {noun}; if it only serves other modules, put a `_` before its name"
    for source in settings.sources:
        place, provider = f"source {source.name} ({source.origin})", providers.providers.get(source.provider)
        faults = [fault for text in source.secrets if provider and (fault := fault_of(provider.scheme, text))]
        if provider is None:
            yield False, f"{place}: there is no provider {source.provider!r}"
        elif not source.secrets:
            yield False, f"{place}: it has no secret; paste the one that {provider.title or provider.name} shows you"
        elif faults:
            yield False, f"{place}: a secret cannot be right: {faults[0]}"
        else:
            yield True, f"{place}, provider {source.provider}"


def _database(settings: Settings) -> Iterator[Finding]:
    try:
        schema.check(settings.resolved_database_url)
        own_key(settings)
        database = open_database(settings.resolved_database_url)
        reads, now = Reads(database), system_clock()
        backlog, alive = reads.backlog(now), [row["kind"] for row in reads.processes(now)]
        homeless = reads.homeless()
        database.close()
    except TidegateError as error:
        yield False, str(error)
        return
    gateways, workers = (counted(alive.count(kind), kind) for kind in ("gateway", "worker"))
    yield True, f"database reached; {counted(backlog['due'], 'run')} due, {gateways} and {workers} alive"
    for row in homeless:
        yield False, _homeless(row)
    if backlog["paused"]:
        yield True, f"{backlog['paused']} runs of paused functions wait; see: tidegate functions"
    yield True, _kept(settings)


def _homeless(row: Record) -> str:
    """Runs that today's code cannot finish."""
    name, _, version = row["function_id"].partition("@")
    gone = f"version {version} of function {name!r}, which" if version else f"function {name!r}, which"
    back = "declare it again beside the new one" if version else "bring it back, or start the worker that has it"
    return f"{row['n']} runs wait for {gone} nobody offers: {back}, or cancel them: tidegate runs cancel {row['run_id']}"


def _kept(settings: Settings) -> str:
    ages = {
        "events": settings.retention_days,
        "events with a failed run": settings.retention_failed_days,
        "refused requests": settings.retention_requests_days,
        "idempotency keys": settings.idempotency_days,
    }
    return "kept: " + ", ".join(f"{what} {f'{days:g} days' if days else 'for ever'}" for what, days in ages.items())


def _gateway(settings: Settings) -> Iterator[Finding]:
    url = reached_at(settings)
    try:
        ready: dict[str, Any] = httpx.get(f"{url}/readyz", headers={"Authorization": f"Bearer {own_key(settings)}"}, timeout=5).json()
        store = ready["store"]
    except (httpx.HTTPError, ValueError, KeyError, TidegateError):
        yield True, f"no gateway answers at {url}; start one with: tidegate serve"
        return
    yield (
        store["state"] == "ok",
        f"the gateway at {url} is {ready['status']}, its store {store['state']}. {store.get('detail', '')}".rstrip(),
    )
    for found in ready.get("broken", []):
        yield False, f"left out by the gateway: {found['file']}: {found['message']}"
