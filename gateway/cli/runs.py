"""`tidegate runs`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Annotated, Any, get_args

import msgspec
import typer

from gateway.cli.output import Cursor, Functions, Json, Limit, Since, earlier, several
from gateway.cli.replay import replay
from gateway.cli.timeline import timeline
from gateway.core.states import FINAL, Status
from gateway.errors import InvalidRequest

app = typer.Typer(help="Executions of functions.", invoke_without_command=True)

FIELDS = ("id", "function_id", "version", "status", "reason", "event_id", "event_name", "created_at", "started_at", "finished_at")
MOST_WARNINGS = 5

RunId = Annotated[str, typer.Argument(metavar="RUN", help="Its id, from `tidegate runs`.")]


@app.callback()
def runs(
    context: typer.Context,
    status: Annotated[list[str] | None, several("STATUS", f"Only those that are {', '.join(get_args(Status))}")] = None,
    function: Functions = None,
    event: Annotated[list[str] | None, several("EVENT", "Only of this event: its name, where `*` is a wildcard, or its id")] = None,
    since: Since = None,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: Json = False,
) -> None:
    """List runs, newest first; each option may be repeated."""
    if context.invoked_subcommand is not None:
        return
    from gateway.cli.client import Client
    from gateway.cli.output import none_found, print_json, print_list

    ids = [one for one in event or [] if one.startswith("evt_")]
    if ids and ids != event:
        raise InvalidRequest("--event takes event names, or event ids, but not both at once")
    span = {"since": since and earlier(since), "event_id" if ids else "event": event}
    found = Client().get("/runs", status=status, function=function, limit=limit, cursor=cursor, **span)
    if as_json:
        print_json(found)
        return
    columns = {
        "ID": "id", "FUNCTION": "function_id", "STATUS": "status", "ATTEMPTS": "attempts", "EVENT": "event_name",
        "CREATED": "created_at", "NEXT ATTEMPT": "next_attempt_at",
    }  # fmt: skip
    hint = "Make some: tidegate trigger stripe invoice.paid"
    filters = {"status": status, "function": function, "event": event, "since": since, "cursor": cursor}
    print_list(found, columns, none_found("runs", hint, **filters))


@app.command()
def show(run_id: RunId, as_json: Json = False) -> None:
    """One run with its steps and attempts: what it returned, or why it failed and where in your code."""
    from gateway.cli.client import Client
    from gateway.cli.output import print_json

    client = Client()
    run, attempts = client.members(f"/runs/{run_id}"), client.members(f"/runs/{run_id}/attempts")["data"]
    steps = client.members(f"/runs/{run_id}/steps")["data"]
    if as_json:
        print_json(msgspec.json.encode({**run, "attempt_list": attempts, "step_list": steps}))
    else:
        output = run.pop("output", None)
        shown = {name: json.loads(bytes(value)) for name, value in run.items()}
        _print(shown, output, json.loads(bytes(steps)), _warnings(client, run_id))
        _print_attempts(shown, json.loads(bytes(attempts)))


@app.command()
def logs(
    run_id: RunId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run is final.")] = False,
    as_json: Json = False,
) -> None:
    """What a run has logged, in order."""
    from gateway.cli.client import Client
    from gateway.cli.output import print_json

    client = Client()
    lines = _lines(client, run_id, follow)
    if as_json:
        print_json({"data": list(lines)})
        return
    before: dict[str, Any] = {}
    for line in lines:
        if before and line["fence"] != before["fence"] and line["attempt"] == before["attempt"]:
            typer.echo(f"--- attempt {line['attempt']} goes on, once more from its beginning")
        said = f"[{line['step']}] {line['message']}" if line["step"] is not None else line["message"]
        typer.echo(f"{line['at']}  {line['attempt']}  {line['level']:<8} {said}")
        before = line


def _warnings(client: Any, run_id: str) -> list[dict[str, Any]]:
    """What the run has warned of since it was taken up last."""
    lines = list(_lines(client, run_id, follow=False, level="warning"))
    return [line for line in lines if line["fence"] == lines[-1]["fence"]]


def _lines(client: Any, run_id: str, follow: bool, level: str | None = None) -> Iterator[dict[str, Any]]:
    seen, cursor = 0, None
    while True:
        final = not follow or client.get(f"/runs/{run_id}")["status"] in FINAL
        page = client.get(f"/runs/{run_id}/logs", limit=1000, cursor=cursor, level=level)
        yield from page["data"][seen:]
        seen = 0 if page["next_cursor"] else len(page["data"])
        cursor = page["next_cursor"] or cursor
        if page["next_cursor"] is None and final:
            return
        if page["next_cursor"] is None:
            time.sleep(0.5)


@app.command()
def cancel(run_id: RunId, as_json: Json = False) -> None:
    """Cancel a run that is not final."""
    _control(run_id, "cancel", as_json)


@app.command()
def retry(run_id: RunId, as_json: Json = False) -> None:
    """Queue a failed or cancelled run again."""
    _control(run_id, "retry", as_json)


app.command()(replay)


def _control(run_id: str, verb: str, as_json: bool) -> None:
    from gateway.cli.client import Client
    from gateway.cli.output import cell, console, print_json

    run = Client().post(f"/runs/{run_id}/{verb}")
    if as_json:
        print_json(run)
    else:
        console.print(run["id"], cell(run["status"]))


def _print(run: dict[str, Any], output: msgspec.Raw | None, steps: list[dict[str, Any]], warnings: list[dict[str, Any]]) -> None:
    from gateway.cli.output import as_text, cell, console, counted, unoffered

    for field in FIELDS:
        if field != "version" or run[field] is not None:
            console.print(f"{field:<12}", cell(run[field]))
    if run["reason"] == "no_worker_offers_it":
        gone = unoffered(run["function_id"], run["version"])
        console.print(f"It waits for {gone}, or cancel it: tidegate runs cancel {run['id']}", markup=False)
    if run["next_attempt_at"]:
        console.print(f"{'next attempt':<12}", cell(run["next_attempt_at"]))
    if output is None and run["status"] == "succeeded":
        console.print("output is shown to API keys with the scope payload:read")
    elif output is not None and run["status"] == "succeeded":
        console.print("output", as_text(bytes(output)), markup=False)
    if run["progress"]:
        console.print(f"{'progress':<12}", _progress(run["progress"]), markup=False)
    if steps:
        console.print(timeline(steps))
    for line in warnings[-MOST_WARNINGS:]:
        console.print(f"warning: {line['message']}".partition("\n")[0], style="yellow", markup=False)
    if len(warnings) > MOST_WARNINGS:
        console.print(f"and {counted(len(warnings) - MOST_WARNINGS, 'warning')} before: tidegate runs logs {run['id']}", markup=False)


def _print_attempts(run: dict[str, Any], attempts: list[dict[str, Any]]) -> None:
    from gateway.cli.output import attempt_line, console, cut_off, is_by_hand, print_error

    for before, attempt in zip([None, *attempts], attempts, strict=False):
        if is_by_hand(attempt, before):
            console.print("retried by hand")
        console.print(attempt_line(attempt), markup=False)
        if attempt["error"]:
            print_error(attempt["error"])
        if (told := cut_off(attempt, last=attempt is attempts[-1] and run["finished_at"] is not None)) is not None:
            console.print(f"    {told}", markup=False)
    if run["error"] and run["error"] not in [attempt["error"] for attempt in attempts]:
        print_error(run["error"])
    if run["status"] in ("failed", "cancelled"):
        hint = "Once it is mended, run it again" if run["status"] == "failed" else "To run it after all"
        console.print(f"{hint}: tidegate runs retry {run['id']}", markup=False)


def _progress(progress: dict[str, Any]) -> str:
    of = f" of {progress['total']}" if progress["total"] is not None else ""
    return f"{progress['done']}{of} {progress['message']}".rstrip()
