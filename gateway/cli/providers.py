"""`tidegate providers`: what was found here, what a delivery's verdict is and why, and whether a provider holds up."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.output import Json
from gateway.errors import InvalidRequest, NotFound
from gateway.sdk.provider import Provider
from gateway.settings import secret_variable

app = typer.Typer(help="Providers: plugins for third parties. Needs no running gateway.", invoke_without_command=True)


@app.callback()
def providers(context: typer.Context, as_json: Json = False) -> None:
    """List the providers found here."""
    if context.invoked_subcommand is not None:
        return
    from gateway.cli.output import console, print_json, print_list
    from gateway.registry import load_providers, shown
    from gateway.settings import load

    registry = load_providers(load().providers)
    rows = [_row(provider) for provider in registry.providers.values()]
    if as_json:
        print_json({"data": rows})
        return
    counted = [{**row, "samples": len(row["samples"])} for row in rows]
    columns = {"NAME": "name", "TITLE": "title", "SECRET IN": "secret", "TYPED EVENTS": "events", "SAMPLES": "samples"}
    print_list({"data": counted}, columns, "No providers found. Write one: providers/acme.py")
    for found in registry.broken:
        console.print(f"left out: {shown(found.file)}: {found.message}", markup=False)
    if rows:
        console.print(f"What one can send: tidegate providers show {rows[0]['name']}")


def _row(provider: Provider) -> dict[str, Any]:
    return {
        "name": provider.name,
        "title": provider.title or provider.name,
        "secret": secret_variable(provider.name),
        "events": len(provider.events),
        "samples": sorted(provider.samples),
    }


@app.command()
def show(name: Annotated[str, typer.Argument(help="The provider.")], as_json: Json = False) -> None:
    """One provider: what to do at the third party, its typed events and its samples."""
    from gateway.cli.output import cell, console, print_json

    provider = _provider(name)
    events = sorted(kind.event_name for kind in provider.events)
    told: dict[str, Any] = {**_row(provider), "events": events, "docs": provider.docs, "setup": provider.setup}
    if as_json:
        print_json(told)
        return
    for field in ("name", "title", "secret", "docs", "setup"):
        console.print(f"{field:<10}", cell(told[field] or None))
    for field in ("events", "samples"):
        console.print(f"{field}\n  " + ("\n  ".join(told[field]) or "(none)"), markup=False)
    if told["samples"]:
        console.print(f"Send one: tidegate trigger {name} {told['samples'][0]}")


@app.command()
def verify(
    name: Annotated[str, typer.Argument(help="The provider.")],
    secret: Annotated[list[str], typer.Option(help="A signing secret; may be repeated.")],
    header: Annotated[list[str], typer.Option(help="'Name: value'; may be repeated.")],
    body_file: Annotated[Path, typer.Option(help="The exact body; `-` for standard input.")],
    method: Annotated[str, typer.Option(help="The request's method.")] = "POST",
    url: Annotated[str, typer.Option(help="The request's path and query.")] = "/",
    at: Annotated[int | None, typer.Option(help="Judge as of this Unix time; now if left out.")] = None,
    as_json: Json = False,
) -> None:
    """Say what a delivery's verdict is and why, its event name and its idempotency key; exit code 1 when it is refused."""
    from gateway.cli.output import cell, console, print_json
    from gateway.sdk.provider import event_name, read, verify
    from gateway.sdk.scheme import Inbound, Rejected

    provider = _provider(name)
    try:
        body = sys.stdin.buffer.read() if str(body_file) == "-" else body_file.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{body_file}: {error.strerror}") from None
    wrong = [text for text in header if not text.partition(":")[0].strip() or ":" not in text]
    if wrong:
        raise InvalidRequest(f"--header takes 'Name: value', not {wrong[0]!r}")
    pairs = [(key.strip().lower(), value.strip()) for key, _, value in (text.partition(":") for text in header)]
    inbound = Inbound(method=method, url=url, headers=pairs, body=body)
    verdict = verify(provider, inbound, secret, int(time.time()) if at is None else at)
    shown: dict[str, Any]
    if isinstance(verdict, Rejected):
        shown = {"verdict": "rejected", "reason": verdict.reason, "diagnosis": verdict.remedy, "event": None, "key": None}
    else:
        parsed = read(provider, inbound)
        shown = {
            "verdict": "verified",
            "secret": verdict.secret_index,
            "event": event_name(provider.name, parsed.type),
            "key": parsed.key,
        }
    if as_json:
        print_json(shown)
    else:
        for field, value in shown.items():
            console.print(f"{field:<10}", cell(value))
    if isinstance(verdict, Rejected):
        raise typer.Exit(1)


@app.command("test")
def conform(name: Annotated[str, typer.Argument(help="The provider.")], as_json: Json = False) -> None:
    """Run the conformance suite over a provider, your own included; exit code 1 when it fails."""
    from gateway.cli.output import console, print_json
    from gateway.testing.conformance import examine

    checks = examine(_provider(name))
    if as_json:
        print_json({"data": [{"check": check.name, "ok": check.ok, "detail": check.detail} for check in checks]})
    else:
        for check in checks:
            console.print(f"{'ok   ' if check.ok else 'WRONG'}  {check.name}{': ' + check.detail if check.detail else ''}", markup=False)
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


def _provider(name: str) -> Provider:
    from gateway.registry import load_providers, shown
    from gateway.settings import load

    registry = load_providers(load().providers)
    if name in registry.providers:
        return registry.providers[name]
    why = "".join(f"; left out: {shown(found.file)}: {found.message}" for found in registry.broken)
    raise NotFound(f"there is no provider {name!r} (there are: {', '.join(sorted(registry.providers)) or 'none'}){why}")
