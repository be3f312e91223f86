"""`tidegate sources`: endpoints and their secrets, changed while the gateway runs."""

from __future__ import annotations

import secrets
import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from gateway.cli.output import Json, span
from gateway.errors import InvalidRequest

app = typer.Typer(help="Sources: endpoints for third parties, and their secrets.", invoke_without_command=True)

Name = Annotated[str, typer.Argument(help="The source's name.")]
Force = Annotated[bool, typer.Option("--force", help="Though another gateway is alive, which may serve what is left out here.")]
SecretOption = Annotated[str | None, typer.Option(help="The signing secret; `-` reads it from standard input. Asked for if left out.")]
Number = Annotated[int, typer.Argument(metavar="N", help="The secret's number, from `sources show`.")]


@app.callback()
def sources(context: typer.Context, as_json: Json = False) -> None:
    """List the sources, with the URL to enter at the third party."""
    if context.invoked_subcommand is not None:
        return
    from gateway.cli.client import Client
    from gateway.cli.output import print_json, print_list

    found = Client().get("/sources")
    if as_json:
        print_json(found)
        return
    rows = [{**row, "secrets": sum(secret["live"] for secret in row["secrets"])} for row in found["data"]]
    columns = {
        "NAME": "name",
        "PROVIDER": "provider",
        "URL": "url",
        "ENABLED": "enabled",
        "LIVE SECRETS": "secrets",
        "FROM": "origin",
        **({"LEFT OUT": "left_out"} if any(row["left_out"] for row in rows) else {}),
    }
    print_list({"data": rows}, columns, "No sources yet. Make one: tidegate sources add stripe --provider stripe")


@app.command()
def show(name: Name, as_json: Json = False) -> None:
    """One source: what to enter at the third party, its secrets' state and their last use."""
    from gateway.cli.client import Client

    _print(Client().get(f"/sources/{name}"), as_json)


@app.command()
def add(
    name: Name,
    provider: Annotated[str | None, typer.Option(help="Its provider; the source's name if left out.")] = None,
    secret: SecretOption = None,
    generate: Annotated[bool, typer.Option("--generate", help="Make a secret up, for third parties that let you choose it.")] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Make a source, or take over one that is left out; it is live at once."""
    from gateway.cli.client import Client

    text = secrets.token_urlsafe(32) if generate else _secret(secret)
    made = Client().send("POST", _forced("/sources", force), {"name": name, "provider": provider or name, "secrets": [text]})
    _print(made, as_json)
    if generate:
        typer.echo(f"secret, shown only this once: {text}", err=as_json)


@app.command()
def enable(name: Name) -> None:
    """Serve a source again."""
    _act(name, "enable")


@app.command()
def disable(name: Name) -> None:
    """Answer 404 for a source, and keep it."""
    _act(name, "disable")


@app.command()
def delete(name: Name, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False, force: Force = False) -> None:
    """Remove a source and its secrets; what it received stays."""
    from gateway.cli.client import Client

    if not yes:
        typer.confirm(f"Remove the source {name!r} and its secrets?", abort=True)
    Client().send("DELETE", _forced(f"/sources/{name}", force))
    typer.echo(f"{name} is gone")


@app.command("add-secret")
def add_secret(
    name: Name,
    secret: SecretOption = None,
    expire_others: Annotated[str | None, typer.Option(help="End the others after this time, such as 24h: a rotation.")] = None,
    as_json: Json = False,
) -> None:
    """Add a secret; it verifies at once, beside the others."""
    from gateway.cli.client import Client

    body = {"secret": _secret(secret), "expire_others_at": None if expire_others is None else later(expire_others)}
    _print(Client().send("POST", f"/sources/{name}/secrets", body), as_json)


@app.command("expire-secret")
def expire_secret(
    name: Name,
    n: Number,
    after: Annotated[str, typer.Option("--in", help="When: 30m, 24h, 7d, or `never`.")],
    as_json: Json = False,
) -> None:
    """Say when a secret ends."""
    from gateway.cli.client import Client

    end = None if after == "never" else later(after)
    _print(Client().send("PATCH", f"/sources/{name}/secrets/{n}", {"expires_at": end}), as_json)


@app.command("remove-secret")
def remove_secret(name: Name, n: Number, as_json: Json = False) -> None:
    """Remove a secret at once."""
    from gateway.cli.client import Client

    _print(Client().send("DELETE", f"/sources/{name}/secrets/{n}"), as_json)


def later(text: str) -> str:
    """`90s`, `30m`, `24h` or `7d` from now, as RFC 3339."""
    after = span(text)
    if after is None:
        raise InvalidRequest(f"{text!r} is not a time span such as 90s, 30m, 24h or 7d")
    return (datetime.now(UTC) + after).isoformat()


def _forced(path: str, force: bool) -> str:
    return f"{path}?force=true" if force else path


def _secret(given: str | None) -> str:
    if given == "-":
        return sys.stdin.readline().strip()
    return given if given is not None else typer.prompt("Signing secret", hide_input=True)


def _act(name: str, verb: str) -> None:
    from gateway.cli.client import Client

    _print(Client().send("POST", f"/sources/{name}/{verb}"), False)


def _print(source: dict[str, Any], as_json: bool) -> None:
    from gateway.cli.output import cell, console, print_json, print_list

    if as_json:
        print_json(source)
        return
    for field in ("name", "provider", "url", "enabled", "origin"):
        console.print(f"{field:<10}", cell(source[field]))
    if source["left_out"]:
        console.print(f"Left out, it answers 404: {source['left_out']}.", markup=False)
        console.print(f"Take it over: tidegate sources add {source['name']}, or remove it: tidegate sources delete {source['name']}")
        return
    console.print(f"At the third party: enter the URL above. {source['setup']}".rstrip(), markup=False)
    columns = {"SECRET": "n", "LIVE": "live", "ADDED": "created_at", "EXPIRES": "expires_at", "LAST USED": "last_used_at"}
    empty = f"No secret: everything is refused. Add one: tidegate sources add-secret {source['name']}"
    print_list({"data": source["secrets"]}, columns, empty)
