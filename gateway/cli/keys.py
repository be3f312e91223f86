"""`tidegate keys`: API keys, their scopes and their end."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli.output import Json

app = typer.Typer(help="API keys: who may read, send, replay, administer.", invoke_without_command=True)


@app.callback()
def keys(context: typer.Context, as_json: Json = False) -> None:
    """List the API keys; the keys themselves are not kept."""
    if context.invoked_subcommand is not None:
        return
    from gateway.cli.client import Client
    from gateway.cli.output import print_json, print_list

    found = Client().get("/keys")
    if as_json:
        print_json(found)
        return
    columns = {
        "ID": "id",
        "NAME": "name",
        "SCOPES": "scopes",
        "MADE": "created_at",
        "EXPIRES": "expires_at",
        "LAST USED": "last_used_at",
    }
    print_list(found, columns, "No API keys yet. Make one: tidegate keys add ci --scope send")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    scope: Annotated[list[str], typer.Option(help="read, payload:read, send, replay or admin; may be repeated.")],
    expires_in: Annotated[str | None, typer.Option(help="When it ends, such as 90d; never if left out.")] = None,
    as_json: Json = False,
) -> None:
    """Make an API key and print it, only this once."""
    from gateway.cli.client import Client
    from gateway.cli.output import print_json
    from gateway.cli.sources import later

    end = None if expires_in is None else later(expires_in)
    made = Client().send("POST", "/keys", {"name": name, "scopes": scope, "expires_at": end})
    if as_json:
        print_json(made)
        return
    typer.echo(f"{made['key']}\n{made['id']}, {', '.join(made['scopes'])}, until {made['expires_at'] or 'revoked'}", err=False)


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(help="The key's id, from `tidegate keys`.")]) -> None:
    """Make an API key void."""
    from gateway.cli.client import Client

    Client().send("DELETE", f"/keys/{key_id}")
    typer.echo(f"{key_id} is void")
