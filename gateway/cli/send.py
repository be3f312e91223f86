"""`tidegate send`: own events, one or a file of any length."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from gateway.cli.output import Json
from gateway.errors import InvalidRequest

BATCH = 500


def send(
    name: Annotated[str | None, typer.Argument(help="Event name, such as user/created.")] = None,
    data: Annotated[str, typer.Option(help="The event's data, as JSON.")] = "{}",
    id: Annotated[str | None, typer.Option("--id", help="Idempotency key: sent again, it is the same event.")] = None,
    file: Annotated[Path | None, typer.Option(help="Events as JSON or JSON Lines, `-` for standard input.")] = None,
    as_json: Json = False,
) -> None:
    """Send an event, or with --file a file of events, each `{"name": …, "data": …, "id": …}`."""
    if (name is None) == (file is None):
        raise InvalidRequest("give an event name, or --file")
    if file is not None:
        _send_file(file, as_json)
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
        console.print(sent["id"], "(seen before)" if sent["duplicate"] else "")


def _send_file(path: Path, as_json: bool) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from gateway.cli.client import Client
    from gateway.cli.output import console, print_json

    client = Client()
    sent = duplicates = 0
    try:
        file: IO[bytes] = typer.get_binary_stream("stdin") if str(path) == "-" else path.open("rb")
        total = None if str(path) == "-" else path.stat().st_size
    except OSError as error:
        raise InvalidRequest(f"{path}: {error.strerror}") from None
    with file, Progress(console=Console(stderr=True), disable=as_json) as progress:
        task = progress.add_task("sending", total=total)
        for batch, size in _batches(_events(file, path)):
            try:
                results = client.post("/events", b"[" + b",".join(batch) + b"]")["data"]
            except Exception as error:
                raise InvalidRequest(f"{path}: stopped after {sent} events: {error}") from None
            sent += len(results)
            duplicates += sum(result["duplicate"] for result in results)
            progress.update(task, advance=size)
    if as_json:
        print_json({"sent": sent, "duplicates": duplicates})
    else:
        console.print(f"{sent} events sent, {duplicates} of them seen before")


def _events(file: IO[bytes], path: Path) -> Iterator[tuple[bytes, int]]:
    """Each event's JSON text with the bytes it took: a JSON object, an array, or a line each."""
    number = 0
    while line := file.readline():
        number += 1
        text = line.strip()
        if not text:
            continue
        value = _parse(text)
        if value is None and number == 1:
            # Not a line that stands for itself: one JSON text over many lines.
            whole = line + file.read()
            value = _parse(whole)
            if value is None:
                raise InvalidRequest(f"{path}: neither JSON nor JSON Lines")
            text = whole.strip()
        if isinstance(value, list):
            for event in value:  # pyright: ignore[reportUnknownVariableType]
                yield json.dumps(event).encode(), len(text) // max(len(value), 1)  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(value, dict):
            yield text, len(line)
        else:
            raise InvalidRequest(f"{path}, line {number}: this is not an event: {text[:80].decode('utf-8', 'replace')}")


def _parse(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _batches(events: Iterator[tuple[bytes, int]]) -> Iterator[tuple[list[bytes], int]]:
    batch: list[bytes] = []
    size = 0
    for text, length in events:
        batch.append(text)
        size += length
        if len(batch) == BATCH:
            yield batch, size
            batch, size = [], 0
    if batch:
        yield batch, size
