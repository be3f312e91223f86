"""`tidegate trigger`: a realistic sample, signed with the source's own secret, through the front door."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from gateway.cli.output import Json
from gateway.errors import InvalidRequest, NotFound, SettingsError
from gateway.sdk.provider import Provider
from gateway.settings import Settings

FINAL = {"succeeded", "failed", "cancelled", "skipped"}


def trigger(
    source: Annotated[str, typer.Argument(help="A source, such as stripe.")],
    type_: Annotated[str, typer.Argument(metavar="TYPE", help="What to send, such as invoice.paid.")],
    follow: Annotated[bool, typer.Option(help="Follow its runs to the end.")] = True,
    timeout: Annotated[float, typer.Option(help="Seconds to follow.")] = 30,
    as_json: Json = False,
) -> None:
    """Sign a sample with the source's secret, post it as the third party would, and follow its runs."""
    from gateway.cli.client import CallFailed, Client
    from gateway.cli.output import console, print_json

    client = Client()
    provider, secret = _source(client.settings, source)
    if type_ not in provider.samples:
        samples = "\n  ".join(sorted(provider.samples)) or "(none)"
        raise NotFound(f"{provider.name} has no sample {type_!r}; it has:\n  {samples}")
    sample = provider.sample(type_)
    headers = [*sample.headers, *provider.scheme.sign(sample.body, secret, int(time.time()))]
    response = client.deliver(f"/webhooks/{source}", sample.body, headers)
    if response.status_code != 200:
        raise CallFailed(f"the gateway answered {response.status_code}: {response.text}")
    event_id = response.json()["id"]
    if not as_json:
        console.print(f"200, event {event_id}")
    deliveries = _follow(client, event_id, timeout, as_json) if follow else client.get(f"/events/{event_id}/deliveries")["data"]
    if as_json:
        print_json({"id": event_id, "deliveries": deliveries})
    elif not deliveries:
        console.print(f"No function listens to {provider.name}/{type_}. Write one in functions/, and start again.")
    if any(delivery["status"] == "failed" for delivery in deliveries):
        raise typer.Exit(1)


def _follow(client: Any, event_id: str, timeout: float, quiet: bool) -> list[dict[str, Any]]:
    from gateway.cli.output import cell, console, error_line

    seen: dict[str, tuple[Any, ...]] = {}
    deadline = time.monotonic() + timeout
    while True:
        deliveries = client.get(f"/events/{event_id}/deliveries")["data"]
        for delivery in deliveries:
            state = (delivery["status"], delivery["attempts"])
            if seen.get(delivery["function_id"]) != state and not quiet:
                rest = error_line(delivery["error"]) or delivery["skip_reason"] or ""
                if delivery["next_attempt_at"] and delivery["status"] == "waiting":
                    rest = f"next attempt at {delivery['next_attempt_at']}"
                console.print(f"  {delivery['function_id']:<24}", cell(delivery["status"]), rest)
                seen[delivery["function_id"]] = state
        if all(delivery["status"] in FINAL for delivery in deliveries):
            return deliveries
        if time.monotonic() > deadline:
            if not quiet:
                console.print(f"Still not final after {timeout:g} s; look again with: tidegate events show {event_id}")
            return deliveries
        time.sleep(0.1)


def _source(settings: Settings, name: str) -> tuple[Provider, str]:
    """A source's provider and newest secret: as configured here, or as the gateway stored it."""
    from gateway.clock import system_clock
    from gateway.ingest.sources import unseal
    from gateway.registry import load_providers
    from gateway.store.cipher import load_cipher
    from gateway.store.database import open_database
    from gateway.store.reads import Reads

    found = next(((s.provider, s.secrets[0]) for s in settings.sources if s.name == name), None)
    if found is None:
        database = open_database(settings.resolved_database_url)
        rows = {row["name"]: row for row in Reads(database).sources()}
        database.close()
        if name not in rows:
            known = ", ".join(sorted(rows)) or "none"
            raise NotFound(f"there is no source {name!r} (there are: {known})")
        now = system_clock()
        live = [s for s in unseal(load_cipher(settings.master_key, settings.data_dir), rows[name]) if s.lives(now)]
        newest = max(live, key=lambda secret: (secret.created_at, -secret.n), default=None)
        found = (rows[name]["provider"], newest.text if newest else "")
    providers = load_providers(settings.providers).providers
    if found[0] not in providers:
        raise SettingsError(f"source {name!r} needs the provider {found[0]!r}, which is not here")
    if not found[1]:
        raise InvalidRequest(f"source {name!r} has no secret to sign with")
    return providers[found[0]], found[1]
