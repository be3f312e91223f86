"""`tidegate requests`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from gateway.cli.output import Cursor, Json, Limit, Since, Sources, earlier, several
from gateway.errors import InvalidRequest

app = typer.Typer(help="Inbound HTTP requests, byte for byte.", invoke_without_command=True)

RequestId = Annotated[str, typer.Argument(metavar="REQUEST", help="Its id, from `tidegate requests`.")]


@app.callback()
def requests(
    context: typer.Context,
    status: Annotated[list[str] | None, several("STATUS", "Only those that are accepted, duplicate or quarantined")] = None,
    source: Sources = None,
    reason: Annotated[list[str] | None, several("REASON", "Only refused for this reason, such as no_match; `*` is a wildcard")] = None,
    since: Since = None,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: Json = False,
) -> None:
    """List requests, newest first; `--status quarantined` shows what failed verification."""
    if context.invoked_subcommand is not None:
        return
    from gateway.cli.client import Client
    from gateway.cli.output import none_found, print_json, print_list

    span = {"since": since and earlier(since)}
    found = Client().get("/requests", status=status, source=source, reason=reason, limit=limit, cursor=cursor, **span)
    if as_json:
        print_json(found)
        return
    columns = {"ID": "id", "SOURCE": "source", "STATUS": "status", "REASON": "reason", "BYTES": "body_bytes",
               "RECEIVED": "received_at", "EVENT": "event_id"}  # fmt: skip
    hint = "Send one: tidegate trigger stripe invoice.paid"
    filters = {"status": status, "source": source, "reason": reason, "since": since, "cursor": cursor}
    print_list(found, columns, none_found("requests", hint, **filters))


@app.command()
def show(request_id: RequestId, as_json: Json = False) -> None:
    """One request: its headers, and in words why it was refused."""
    from gateway.cli.client import Client
    from gateway.cli.output import cell, console, print_json

    request = Client().get(f"/requests/{request_id}")
    if as_json:
        print_json(request)
        return
    for field in ("id", "source", "status", "reason", "diagnosis", "event_id", "received_at", "method", "url", "body_bytes"):
        console.print(f"{field:<12}", cell(request[field]))
    if "headers" in request:
        for name, value in request["headers"]:
            console.print(f"  {name}: {value}", markup=False)
    else:
        console.print("headers are shown to API keys with the scope payload:read")
    if request["status"] == "quarantined":
        console.print(f"Once the cause is mended, verify it again: tidegate requests reprocess {request['id']}", markup=False)
    console.print(f"Its exact bytes: tidegate requests raw {request['id']}", markup=False)


@app.command()
def raw(request_id: RequestId) -> None:
    """The exact bytes that arrived, to standard output."""
    from gateway.cli.client import Client

    sys.stdout.buffer.write(Client().raw(f"/requests/{request_id}/raw"))


@app.command()
def reprocess(
    request_id: Annotated[str | None, typer.Argument(metavar="[REQUEST]", help="One request; or use --source.")] = None,
    source: Annotated[str | None, typer.Option(metavar="SOURCE", help="All quarantined requests of this source.")] = None,
    since: Since = None,
    as_json: Json = False,
) -> None:
    """Verify quarantined requests again, judged as of their receipt with today's secrets, and deliver what holds.

    Exit code 1 when the one request is still refused.
    """
    from gateway.cli.client import Client
    from gateway.cli.output import print_json

    if (request_id is None) == (source is None):
        raise InvalidRequest("give a request id, or --source NAME for all quarantined requests of a source")
    client = Client()
    if request_id is not None:
        found = [client.send("POST", f"/requests/{request_id}/reprocess")]
    else:
        found = list(_all_of(client, {"source": source, "since": since and earlier(since)}))
    refused = [one["id"] for one in found if one["status"] == "quarantined"]
    if as_json:
        print_json({"data": found})
    else:
        _print_reprocessed(found, refused)
    if request_id is not None and refused:
        raise typer.Exit(1)


def _print_reprocessed(found: list[dict[str, Any]], refused: list[str]) -> None:
    from gateway.cli.output import console, print_list

    print_list({"data": found}, {"ID": "id", "STATUS": "status", "REASON": "reason", "EVENT": "event_id"}, "No quarantined requests.")
    if refused:
        console.print(f"{len(refused)} still refused; see why: tidegate requests show {refused[0]}", markup=False)


def _all_of(client: Any, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    cursor = None
    while True:
        page = client.send("POST", "/requests/reprocess", {**body, "cursor": cursor})
        yield from page["data"]
        cursor = page["next_cursor"]
        if cursor is None:
            return


@app.command()
def discard(request_id: RequestId) -> None:
    """Remove a quarantined request for good."""
    from gateway.cli.client import Client

    Client().send("POST", f"/requests/{request_id}/discard")
    typer.echo(f"{request_id} is gone")
