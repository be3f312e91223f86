"""`tidegate doctor`: looks at everything from here, with or without a running gateway."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import httpx
import typer

from gateway.cli.client import CallFailed, Client, own_key, reached_at
from gateway.cli.output import counted, print_json, unoffered
from gateway.clock import system_clock
from gateway.core.spec import version_of
from gateway.errors import SettingsError, TidegateError, Unavailable
from gateway.ingest.sources import unseal
from gateway.registry import load_functions, load_providers, shown
from gateway.sdk.scheme import fault_of
from gateway.settings import Settings
from gateway.store import schema
from gateway.store.cipher import load_cipher
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
    yield True, f"{counted(len(providers.providers), 'provider')}, {counted(len(functions.functions), 'function')}"
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
        homeless, sources = reads.homeless(), reads.sources()
        database.close()
    except TidegateError as error:
        yield False, f"{str(error).rstrip('.?')}. {error.remedy}" if isinstance(error, Unavailable) else str(error)
        return
    gateways, workers = alive.count("gateway"), alive.count("worker")
    due = counted(backlog["due"], "run")
    yield True, f"database reached; {due} due, {counted(gateways, 'gateway')} and {counted(workers, 'worker')} alive"
    if backlog["due"] and not workers:
        yield False, "no worker is alive to run what is due; start one with: tidegate worker"
    yield from _sealed(settings, sources)
    for row in homeless:
        yield False, _homeless(row)
    if backlog["paused"]:
        yield True, f"paused functions hold back {counted(backlog['paused'], 'run')}; see: tidegate functions"
    yield True, _kept(settings)


def _sealed(settings: Settings, rows: Iterable[Record]) -> Iterator[Finding]:
    """Sources whose secrets only the database has, under a master key that is not the one here."""
    try:
        cipher = load_cipher(settings.master_key, settings.data_dir)
    except SettingsError:  # whoever brings an API key need not have one
        return
    configured = {source.name for source in settings.sources if source.secrets}
    for row in rows:
        try:
            unseal(cipher, row)
        except SettingsError as error:
            if row["name"] not in configured:
                yield False, f"source {row['name']} ({row['origin']}): {error}"


def _homeless(row: Record) -> str:
    """Runs that today's code cannot finish."""
    queued_as, one = row["function_id"], row["n"] == 1
    gone = unoffered(queued_as.partition("@")[0], version_of(queued_as))
    cancel = f"cancel {'it' if one else 'them'}: tidegate runs cancel {row['run_id']}"
    return f"{counted(row['n'], 'run')} {'waits' if one else 'wait'} for {gone}, or {cancel}"


def _kept(settings: Settings) -> str:
    ages = {
        "events": settings.retention_days,
        "events with a failed run": settings.retention_failed_days,
        "refused requests": settings.retention_requests_days,
        "idempotency keys": settings.idempotency_days,
    }
    return "kept: " + ", ".join(f"{what} {_span(days)}" for what, days in ages.items())


def _span(days: float) -> str:
    return f"{days:g} {'day' if days == 1 else 'days'}" if days else "for ever"


def _gateway(settings: Settings) -> Iterator[Finding]:
    url = reached_at(settings)
    try:
        ready: dict[str, Any] = httpx.get(f"{url}/readyz", headers={"Authorization": f"Bearer {own_key(settings)}"}, timeout=5).json()
        store = ready["store"]
    except (httpx.HTTPError, ValueError, KeyError, TidegateError):
        yield not settings.url, f"no gateway answers at {url}; start one with: tidegate serve"
        return
    yield (
        store["state"] == "ok",
        f"the gateway at {url} is {ready['status']}, its store {store['state']}. {store.get('detail', '')}".rstrip(),
    )
    try:
        Client(settings).get("/sources")
    except CallFailed as error:
        if (error.problem or {}).get("code") == "unauthorized":
            yield False, str(error)
    for found in ready.get("broken", []):
        yield False, f"left out by the gateway: {found['file']}: {found['message']}"
