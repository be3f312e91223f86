"""`tidegate functions`: what is offered; pause, resume, and invoke by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from gateway.cli.output import Json
from gateway.errors import InvalidRequest

app = typer.Typer(help="Functions that are offered.", invoke_without_command=True)

Id = Annotated[str, typer.Argument(metavar="FUNCTION", help="Its id, from `tidegate functions`.")]


@app.callback()
def functions(context: typer.Context, as_json: Json = False) -> None:
    """List the functions that are offered."""
    if context.invoked_subcommand is not None:
        return
    from gateway.cli.client import Client
    from gateway.cli.output import print_json, print_list

    columns = {
        "ID": "id",
        "VERSION": "version",
        "ON": "triggers",
        "IF": "if",
        "RETRIES": "retries",
        "TIMEOUT MS": "timeout_ms",
        "PAUSED": "paused_at",
        "FROM": "origin",
    }
    found = Client().get("/functions")
    if as_json:
        print_json(found)
    else:
        rows = [{**row, "triggers": triggers(row)} for row in found["data"]]
        print_list({"data": rows}, columns, "No functions yet. Write one: functions/mine.py")


def triggers(function: Mapping[str, Any]) -> str:
    """What a function listens to; or else who runs it."""
    failing = function["id"].removesuffix(".on-failure")
    return ", ".join(function["on"]) or ("when invoked" if failing == function["id"] else f"when {failing} fails")


@app.command()
def pause(function_id: Id, as_json: Json = False) -> None:
    """Let its runs wait, those to come included; attempts that are running go on to their end."""
    _act(function_id, "pause", as_json)


@app.command()
def resume(function_id: Id, as_json: Json = False) -> None:
    """Let its runs go on."""
    _act(function_id, "resume", as_json)


@app.command()
def invoke(
    function_id: Id,
    data: Annotated[str, typer.Option(help="The event's data, as JSON.")] = "{}",
    as_json: Json = False,
) -> None:
    """Run this function, and no other, on an event made of --data."""
    from gateway.cli.client import Client
    from gateway.cli.output import console, print_json

    try:
        json.loads(data)
    except ValueError as error:
        raise InvalidRequest(f"--data is not JSON: {error}") from None
    sent = Client().post(f"/functions/{function_id}/invoke", f'{{"data":{data}}}'.encode())
    if as_json:
        print_json(sent)
    else:
        console.print(f"event {sent['id']}; see: tidegate events show {sent['id']}")


def _act(function_id: str, verb: str, as_json: bool) -> None:
    from gateway.cli.client import Client
    from gateway.cli.output import console, print_json

    shown = Client().post(f"/functions/{function_id}/{verb}")
    if as_json:
        print_json(shown)
    else:
        console.print(f"{function_id} is paused" if shown["paused_at"] else f"{function_id} goes on")
