"""`tidegate events`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import msgspec
import typer

from gateway.cli.output import Cursor, Json, Limit, Names, Since, Sources, earlier, several

app = typer.Typer(help="What arrived, and what became of it.", invoke_without_command=True)

EventId = Annotated[str, typer.Argument(metavar="EVENT", help="Its id, from `tidegate events`.")]


@app.callback()
def events(
    context: typer.Context,
    name: Names = None,
    source: Sources = None,
    since: Since = None,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: Json = False,
) -> None:
    """List events, newest first; `--name` takes wildcards."""
    if context.invoked_subcommand is not None:
        return
    from gateway.cli.client import Client
    from gateway.cli.output import none_found, print_json, print_list, shortened

    span = {"since": since and earlier(since)}
    found = Client().get("/events", name=name, source=source, limit=limit, cursor=cursor, **span)
    if as_json:
        print_json(found)
        return
    columns = {"ID": "id", "NAME": "name", "SOURCE": "source", "RECEIVED": "received_at", "KEY": "key"}
    hint = "Send one: tidegate trigger stripe invoice.paid"
    found["data"] = [{**row, "key": shortened(row["key"])} for row in found["data"]]
    print_list(found, columns, none_found("events", hint, name=name, source=source, since=since, cursor=cursor))


@app.command()
def show(event_id: EventId, as_json: Json = False) -> None:
    """One event: its data, its deliveries, each run's attempts."""
    from gateway.cli.client import Client
    from gateway.cli.output import as_text, cell, console, print_json

    client = Client()
    event, deliveries = client.members(f"/events/{event_id}"), client.members(f"/events/{event_id}/deliveries")["data"]
    if as_json:
        print_json(msgspec.json.encode({**event, "deliveries": deliveries}))
        return
    for field in ("id", "name", "source", "key", "occurred_at", "received_at", "request_id"):
        console.print(f"{field:<12}", cell(json.loads(bytes(event[field]))))
    console.print(f"{'attributes':<12}", bytes(event["attributes"]).decode(), markup=False)
    if "data" in event:
        console.print("data", as_text(bytes(event["data"])), markup=False)
    else:
        console.print("data is shown to API keys with the scope payload:read")
    request_id = json.loads(bytes(event["request_id"]))
    if request_id and json.loads(bytes(event["name"])).endswith("/unknown"):
        console.print("Its provider found no type in it, or failed to read it: then the log says why, as webhook.unread.")
        console.print(f"Its exact bytes: tidegate requests raw {request_id}", markup=False)
    _print_deliveries(client, event_id, json.loads(bytes(deliveries)))


@app.command()
def deliveries(event_id: EventId, as_json: Json = False) -> None:
    """What became of an event for each function, with every attempt."""
    from gateway.cli.client import Client
    from gateway.cli.output import print_json

    client = Client()
    found = client.get(f"/events/{event_id}/deliveries")
    if as_json:
        print_json(found)
    else:
        _print_deliveries(client, event_id, found["data"])


def _print_deliveries(client: Any, event_id: str, found: list[dict[str, Any]]) -> None:
    from gateway.cli.output import attempt_line, cell, console, error_line, is_by_hand

    if not found:
        console.print("When it came, no function listened to it. See who does: tidegate events types")
        console.print(f"Once one does, run it: tidegate events replay {event_id}", markup=False)
        return
    console.print("deliveries")
    skipped = any((delivery["skip_reason"] or "").startswith("if_") for delivery in found)
    conditions = {one["id"]: one["if"] for one in client.get("/functions")["data"]} if skipped else {}
    for delivery in found:
        console.print(f"  {delivery['function_id']}", cell(delivery["status"]), cell(delivery["run_id"]))
        if delivery["skip_reason"]:
            console.print(f"    skipped: {delivery['skip_reason']}", markup=False)
            if conditions.get(delivery["function_id"]):
                console.print(f"    its if_: {conditions[delivery['function_id']]}", markup=False)
        attempts = delivery["attempt_list"]
        for before, attempt in zip([None, *attempts], attempts, strict=False):
            if is_by_hand(attempt, before):
                console.print("    retried by hand")
            console.print(f"    {attempt_line(attempt)} {error_line(attempt['error'])}".rstrip(), markup=False)
        if delivery["next_attempt_at"] and delivery["status"] == "waiting":
            console.print(f"    next attempt at {delivery['next_attempt_at']}")
    failed = [delivery["run_id"] for delivery in found if delivery["status"] == "failed"]
    if failed:
        console.print(f"Why, with the traceback: tidegate runs show {failed[0]}")


@app.command()
def replay(
    event_id: EventId, function: Annotated[list[str] | None, several("FUNCTION", "Run only this one")] = None, as_json: Json = False
) -> None:
    """Run an event again: for every function that matches it, or only for those named."""
    from gateway.cli.client import Client
    from gateway.cli.output import console, counted, print_json

    body = json.dumps({"functions": function}).encode() if function else b""
    made = Client().post(f"/events/{event_id}/replay", body)
    if as_json:
        print_json(made)
    elif not made["runs"]:
        console.print("No function matches this event; nothing was run. See who listens: tidegate functions")
    else:
        new = counted(len(made["runs"]), "new run")
        console.print(f"{made['replay_id']}: {new}; see: tidegate runs --event {event_id}", markup=False)


@app.command()
def types(
    name: Annotated[str | None, typer.Argument(help="One event name: its JSON Schema, a sample, and who listens.")] = None,
    as_json: Json = False,
) -> None:
    """List every event name that a provider or function declares, or that has arrived."""
    from gateway.cli.client import Client
    from gateway.cli.output import print_json, print_list

    client = Client()
    if name is not None:
        print_json(client.raw(f"/event-types/{name}"))
        return
    found = client.get("/event-types")
    if as_json:
        print_json(found)
    else:
        print_list(found, {"NAME": "name", "PROVIDER": "provider", "FUNCTIONS": "functions"}, "No event types yet.")
