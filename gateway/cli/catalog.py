"""`tidegate functions`, `sources` and `providers`."""

from __future__ import annotations

from gateway.cli.output import Json


def functions(as_json: Json = False) -> None:
    """List the functions that are offered."""
    columns = {"ID": "id", "ON": "on", "IF": "if", "RETRIES": "retries", "TIMEOUT MS": "timeout_ms", "FROM": "origin"}
    _list("/functions", columns, "No functions yet. Write one: functions/mine.py", as_json)


def sources(as_json: Json = False) -> None:
    """List the sources, with the URL to enter at the third party."""
    columns = {"NAME": "name", "PROVIDER": "provider", "URL": "url", "SECRETS": "secrets", "FROM": "origin"}
    empty = "No sources yet. Set a secret and start again: STRIPE_WEBHOOK_SECRET=whsec_… tidegate serve"
    _list("/sources", columns, empty, as_json)


def providers(as_json: Json = False) -> None:
    """List the providers found here; needs no running gateway."""
    from gateway.cli.output import console, print_json, print_list
    from gateway.registry import load_providers
    from gateway.settings import load

    registry = load_providers(load().providers)
    rows = [
        {
            "name": provider.name,
            "title": provider.title or provider.name,
            "secret": f"{provider.name.upper().replace('-', '_')}_WEBHOOK_SECRET",
            "events": len(provider.events),
            "samples": sorted(provider.samples),
        }
        for provider in registry.providers.values()
    ]
    if as_json:
        print_json({"data": rows})
        return
    columns = {"NAME": "name", "TITLE": "title", "SECRET IN": "secret", "TYPED EVENTS": "events", "SAMPLES": "samples"}
    print_list({"data": rows}, columns, "No providers found. Write one: providers/acme.py")
    for found in registry.broken:
        console.print(f"left out: {found.file}: {found.message}", markup=False)


def _list(path: str, columns: dict[str, str], empty: str, as_json: bool) -> None:
    from gateway.cli.client import Client
    from gateway.cli.output import print_json, print_list

    found = Client().get(path)
    if as_json:
        print_json(found)
    else:
        print_list(found, columns, empty)
