"""`tidegate send`: own events, one or a file of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.output import Json
from gateway.errors import InvalidRequest


def send(
    name: Annotated[str | None, typer.Argument(help="Event name, such as user/created.")] = None,
    data: Annotated[str, typer.Option(help="The event's data, as JSON.")] = "{}",
    id: Annotated[str | None, typer.Option("--id", help="Idempotency key: sent again, it is the same event.")] = None,
    file: Annotated[Path | None, typer.Option(help="Events as JSON Lines or a JSON array, `-` for standard input.")] = None,
    as_json: Json = False,
) -> None:
    """Send an event, or with --file a file of events, each `{"name": …, "data": …, "id": …}`."""
    if (name is None) == (file is None):
        raise InvalidRequest("give an event name, as in: tidegate send user/created --data '{\"id\": 7}'; or --file events.jsonl")
    if file is not None:
        from gateway.cli.sendfile import send_file

        send_file(file, as_json)
        return
    from gateway.cli.client import Client
    from gateway.cli.output import console, print_json

    try:
        json.loads(data)
    except ValueError as error:
        raise InvalidRequest(f"--data is not JSON: {error}") from None
    # The text goes as it was typed, so that big numbers stay exact.
    parts = [f'"name":{json.dumps(name)}', f'"data":{data}'] + ([f'"id":{json.dumps(id)}'] if id else [])
    sent = Client().post("/events", ("{" + ",".join(parts) + "}").encode())
    if as_json:
        print_json(sent)
    else:
        console.print(sent["id"] + (" (seen before)" if sent["duplicate"] else ""))
