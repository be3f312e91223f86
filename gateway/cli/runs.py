"""`tidegate runs`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from gateway.cli.output import Json, Limit, Since, earlier

app = typer.Typer(help="Executions of functions.", invoke_without_command=True)

Many = Annotated[list[str] | None, typer.Option()]


@app.callback()
def runs(
    context: typer.Context,
    status: Many = None,
    function: Many = None,
    event: Many = None,
    since: Since = None,
    limit: Limit = 20,
    cursor: str | None = None,
    as_json: Json = False,
) -> None:
    """List runs, newest first; `--event` takes wildcards."""
    if context.invoked_subcommand is not None:
        return
    from gateway.cli.client import Client
    from gateway.cli.output import print_json, print_list

    span = {"since": since and earlier(since)}
    found = Client().get("/runs", status=status, function=function, event=event, limit=limit, cursor=cursor, **span)
    if as_json:
        print_json(found)
        return
    columns = {
        "ID": "id", "FUNCTION": "function_id", "STATUS": "status", "ATTEMPTS": "attempts", "EVENT": "event_name",
        "CREATED": "created_at", "NEXT ATTEMPT": "next_attempt_at",
    }  # fmt: skip
    print_list(found, columns, "No runs. Make some: tidegate trigger stripe invoice.paid")


@app.command()
def show(run_id: str, as_json: Json = False) -> None:
    """One run with its attempts."""
    from gateway.cli.client import Client
    from gateway.cli.output import print_json

    client = Client()
    run = client.get(f"/runs/{run_id}")
    attempts = client.get(f"/runs/{run_id}/attempts")["data"]
    if as_json:
        print_json({**run, "attempt_list": attempts})
    else:
        _print(run, attempts)


@app.command()
def logs(
    run_id: str,
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
    for line in lines:
        typer.echo(f"{line['at']}  {line['attempt']}  {line['level']:<8} {line['message']}")


def _lines(client: Any, run_id: str, follow: bool) -> Iterator[dict[str, Any]]:
    seen, cursor = 0, None
    while True:
        final = not follow or client.get(f"/runs/{run_id}")["status"] in ("succeeded", "failed", "cancelled")
        page = client.get(f"/runs/{run_id}/logs", limit=1000, cursor=cursor)
        yield from page["data"][seen:]
        seen = 0 if page["next_cursor"] else len(page["data"])
        cursor = page["next_cursor"] or cursor
        if page["next_cursor"] is None and final:
            return
        if page["next_cursor"] is None:
            time.sleep(0.5)


@app.command()
def cancel(run_id: str, as_json: Json = False) -> None:
    """Cancel a run that is not final."""
    _control(run_id, "cancel", as_json)


@app.command()
def retry(run_id: str, as_json: Json = False) -> None:
    """Queue a failed or cancelled run again."""
    _control(run_id, "retry", as_json)


def _control(run_id: str, verb: str, as_json: bool) -> None:
    from gateway.cli.client import Client
    from gateway.cli.output import cell, console, print_json

    run = Client().post(f"/runs/{run_id}/{verb}")
    if as_json:
        print_json(run)
    else:
        console.print(run["id"], cell(run["status"]))


def _print(run: dict[str, Any], attempts: list[dict[str, Any]]) -> None:
    from gateway.cli.output import as_text, cell, console

    for field in ("id", "function_id", "status", "reason", "event_id", "event_name", "created_at", "started_at", "finished_at"):
        console.print(f"{field:<12}", cell(run[field]))
    if run["next_attempt_at"]:
        console.print(f"{'next attempt':<12}", cell(run["next_attempt_at"]))
    if run["output"] is not None:
        console.print("output", as_text(run["output"]), markup=False)
    for attempt in attempts:
        line = f"attempt {attempt['number']}  {attempt['started_at']}  {attempt['duration_ms']} ms  {attempt['outcome']}"
        console.print(line, markup=False)
        if attempt["error"]:
            text = attempt["error"]["traceback"] or f"{attempt['error']['type']}: {attempt['error']['message']}"
            console.print("\n".join(f"    {row}" for row in text.rstrip().split("\n")), markup=False)
