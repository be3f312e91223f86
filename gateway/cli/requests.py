"""`tidegate requests`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from gateway.cli.output import Json, Limit

app = typer.Typer(help="Inbound HTTP requests, byte for byte.", invoke_without_command=True)

Many = Annotated[list[str] | None, typer.Option()]


@app.callback()
def requests(
    context: typer.Context,
    status: Many = None,
    source: Many = None,
    limit: Limit = 20,
    cursor: str | None = None,
    as_json: Json = False,
) -> None:
    """List requests, newest first; `--status quarantined` shows what failed verification."""
    if context.invoked_subcommand is not None:
        return
    from gateway.cli.client import Client
    from gateway.cli.output import print_json, print_list

    found = Client().get("/requests", status=status, source=source, limit=limit, cursor=cursor)
    if as_json:
        print_json(found)
        return
    columns = {"ID": "id", "SOURCE": "source", "STATUS": "status", "REASON": "reason", "BYTES": "body_bytes",
               "RECEIVED": "received_at", "EVENT": "event_id"}  # fmt: skip
    print_list(found, columns, "No requests yet. Send one: tidegate trigger stripe invoice.paid")


@app.command()
def show(request_id: str, as_json: Json = False) -> None:
    """One request: its headers, and in words why it was refused."""
    from gateway.cli.client import Client
    from gateway.cli.output import cell, console, print_json

    request = Client().get(f"/requests/{request_id}")
    if as_json:
        print_json(request)
        return
    for field in ("id", "source", "status", "reason", "diagnosis", "event_id", "received_at", "method", "url", "body_bytes"):
        console.print(f"{field:<12}", cell(request[field]))
    for name, value in request["headers"]:
        console.print(f"  {name}: {value}", markup=False)


@app.command()
def raw(request_id: str) -> None:
    """The exact bytes that arrived, to standard output."""
    from gateway.cli.client import Client

    sys.stdout.buffer.write(Client().raw(f"/requests/{request_id}/raw"))
