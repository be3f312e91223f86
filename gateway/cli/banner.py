"""What `tidegate serve` says once it is ready."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import typer

from gateway.settings import Settings

WAIT_SECONDS = 30.0


def print_banner(settings: Settings) -> None:
    """Wait until the gateway answers, then print where everything is and the next thing to type."""
    import httpx

    from gateway.cli.client import own_key

    headers = {"Authorization": f"Bearer {own_key(settings)}"}
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        try:
            ready = httpx.get(f"{settings.base_url}/readyz", headers=headers, timeout=2).json()
            break
        except (httpx.HTTPError, ValueError):
            time.sleep(0.05)
    else:
        return
    for line in lines(settings, ready.get("broken", [])):
        typer.echo(line)


def lines(settings: Settings, broken: list[dict[str, str]]) -> list[str]:
    """The banner."""
    from gateway.store.admin import decode_manifest
    from gateway.store.database import open_database
    from gateway.store.reads import Reads

    database = open_database(settings.resolved_database_url)
    manifests = [decode_manifest(bytes(app["manifest"])) for app in Reads(database).apps()]
    sources = [row for row in Reads(database).sources() if _served(settings, row, broken)]
    database.close()
    specs = [spec for manifest in manifests for spec in manifest.specs]
    out = ["", f"Tidegate is ready at {settings.base_url}", ""]
    for source in sources:
        out.append(f"  source    {source['name']:<12} {settings.inbound_url}/webhooks/{source['name']}   ({source['origin']})")
    if not sources:
        out.append("  No sources yet. Make one in another terminal: tidegate sources add stripe")
    out += [f"  function  {spec.id:<24} on {', '.join(spec.on)}   ({spec.origin})" for spec in specs]
    if not specs:
        out.append("  No functions yet. Write one: functions/mine.py")
    out += [f"  LEFT OUT  {found['file']}: {found['message']}" for found in broken]
    if sources:
        first = sources[0]
        event = {"stripe": "invoice.paid", "github": "push"}.get(first["provider"], "TYPE")
        out += ["", f"Next, in another terminal:  tidegate trigger {first['name']} {event}"]
    return [*out, ""]


def _served(settings: Settings, row: Mapping[str, Any], broken: list[dict[str, str]]) -> bool:
    left_out = any(found["message"].startswith(f"source {row['name']!r}:") for found in broken)
    return not left_out and (row["origin"] == "api" or any(source.name == row["name"] for source in settings.sources))
