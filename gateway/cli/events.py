"""`tidegate events`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from gateway.cli.output import Json, Limit, Since, earlier

app = typer.Typer(help="What arrived, and what became of it.", invoke_without_command=True)

Many = Annotated[list[str] | None, typer.Option()]


@app.callback()
def events(
    context: typer.Context,
    name: Many = None,
    source: Many = None,
    since: Since = None,
    limit: Limit = 20,
    cursor: str | None = None,
    as_json: Json = False,
) -> None:
    """List events, newest first; `--name` takes wildcards."""
    if context.invoked_subcommand is not None:
        return
    from gateway.cli.client import Client
    from gateway.cli.output import print_json, print_list

    span = {"since": since and earlier(since)}
    found = Client().get("/events", name=name, source=source, limit=limit, cursor=cursor, **span)
    if as_json:
        print_json(found)
        return
    columns = {"ID": "id", "NAME": "name", "SOURCE": "source", "RECEIVED": "received_at", "KEY": "key"}
    print_list(found, columns, "No events yet. Send one: tidegate trigger stripe invoice.paid")


@app.command()
def show(event_id: str, as_json: Json = False) -> None:
    """One event: its data, its deliveries, each run's attempts."""
    from gateway.cli.client import Client
    from gateway.cli.output import as_text, cell, console, error_line, print_json

    client = Client()
    event = client.get(f"/events/{event_id}")
    deliveries = client.get(f"/events/{event_id}/deliveries")["data"]
    for delivery in deliveries:
        if delivery["run_id"]:
            delivery["attempt_list"] = client.get(f"/runs/{delivery['run_id']}/attempts")["data"]
    if as_json:
        print_json({**event, "deliveries": deliveries})
        return
    for field in ("id", "name", "source", "key", "occurred_at", "received_at", "request_id"):
        console.print(f"{field:<12}", cell(event[field]))
    console.print(f"{'attributes':<12}", json.dumps(event["attributes"]), markup=False)
    console.print("data", as_text(event["data"]), markup=False)
    console.print("deliveries" if deliveries else "No function listens to this event; see: tidegate functions")
    for delivery in deliveries:
        console.print(f"  {delivery['function_id']}", cell(delivery["status"]), cell(delivery["run_id"]))
        if delivery["skip_reason"]:
            console.print(f"    skipped: {delivery['skip_reason']}", markup=False)
        for attempt in delivery.get("attempt_list", []):
            line = f"    attempt {attempt['number']}  {attempt['started_at']}  {attempt['duration_ms']} ms  {attempt['outcome']}"
            console.print(line, error_line(attempt["error"]), markup=False)


@app.command()
def replay(event_id: str, function: Many = None, as_json: Json = False) -> None:
    """Run an event again: for every function that matches it, or only for those named."""
    from gateway.cli.client import Client
    from gateway.cli.output import console, print_json

    body = json.dumps({"functions": function}).encode() if function else b""
    made = Client().post(f"/events/{event_id}/replay", body)
    if as_json:
        print_json(made)
    else:
        console.print(f"{made['replay_id']}: {len(made['runs'])} new runs", *made["runs"])


@app.command()
def types(
    name: Annotated[str | None, typer.Argument(help="One event name: its JSON Schema, a sample, and who listens.")] = None,
    as_json: Json = False,
) -> None:
    """List every event name that a provider or function declares, or that has arrived."""
    from gateway.cli.client import Client
    from gateway.cli.output import print_json, print_list

    client = Client()
    found = client.get("/event-types" if name is None else f"/event-types/{name}")
    if as_json or name is not None:
        print_json(found)
    else:
        print_list(found, {"NAME": "name", "PROVIDER": "provider", "FUNCTIONS": "functions"}, "No event types yet.")
