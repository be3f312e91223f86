"""`tidegate send --file`: JSON Lines of any length, read line by line; or one JSON text, an array or a single event.

Events go in batches, each of which the gateway takes as a whole or not at all, in the order they stand in the file. So what
has been sent is known when something is wrong, and where to go on.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

import msgspec
import typer
from rich.console import Console
from rich.progress import Progress

from gateway import codec
from gateway.cli.client import CallFailed, Client
from gateway.cli.output import console, counted, print_json
from gateway.errors import InvalidRequest, TidegateError

BATCH = 5000
BATCH_BYTES = 4 << 20
BOM = b"\xef\xbb\xbf"
AGAIN = "send the file again (events that bring an `id` are not taken twice)"

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_array = msgspec.json.Decoder(list[msgspec.Raw])


class NotAnEvent(InvalidRequest):
    """Something in the file is no event; the message begins with its place."""


@dataclass(frozen=True, slots=True)
class Item:
    """One event of a file: its JSON text, where it stands, and where in the file it ends; its line, if it has one to itself."""

    text: bytes | msgspec.Raw
    where: str
    end: int
    line: int | None = None


@dataclass(slots=True)
class Tally:
    """What has been sent, which batch was last, and the line to go on from."""

    sent: int = 0
    duplicates: int = 0
    batch: list[Item] = field(default_factory=list[Item])
    next_line: int | None = None


def send_file(path: Path, as_json: bool) -> None:
    """Send every event of a file; `-` is standard input. Raises InvalidRequest, saying what was sent and how to go on."""
    client, tally = Client(), Tally()
    from_stdin = str(path) == "-"
    try:
        file = cast(BufferedReader, typer.get_binary_stream("stdin") if from_stdin else path.open("rb"))
        total = None if from_stdin else path.stat().st_size
    except OSError as error:
        raise InvalidRequest(f"{path}: {error.strerror}") from None
    with file, Progress(console=Console(stderr=True), disable=as_json) as progress:
        task = progress.add_task("sending", total=total)
        try:
            for tally.batch in _batches(_items(file), min(BATCH_BYTES, client.settings.max_body_bytes)):
                tally.next_line = tally.batch[0].line
                results = client.post("/events", b"[" + b",".join(item.text for item in tally.batch) + b"]")["data"]
                tally.sent += len(results)
                tally.duplicates += sum(result["duplicate"] for result in results)
                last = tally.batch[-1]
                tally.next_line = last.line and last.line + 1
                progress.update(task, completed=last.end)
        except (TidegateError, OSError, KeyboardInterrupt) as error:
            raise InvalidRequest(_stopped(path, error, tally)) from None
        progress.update(task, total=1, completed=1)
    if as_json:
        print_json({"sent": tally.sent, "duplicates": tally.duplicates})
    elif not tally.sent:
        console.print(f"{_name(path)} holds no event; nothing was sent.", markup=False)
    else:
        console.print(f"{counted(tally.sent, 'event')} sent" + (f", {tally.duplicates} of them seen before" if tally.duplicates else ""))


def _stopped(path: Path, error: BaseException, tally: Tally) -> str:
    """What is wrong and where, what has been sent, and how to send the rest."""
    problem: Mapping[str, Any] | None = None  # nobody has said that the last batch was not taken
    if isinstance(error, NotAnEvent):
        problem = {}
    elif isinstance(error, CallFailed):
        problem = error.problem
    item = _pointed_at(problem or {}, tally.batch)
    name = _name(path)
    place = f", {item.where}:" if item else "," if isinstance(error, NotAnEvent) else ":"
    message = f"{name}{place} {str(error) or 'interrupted'}"
    if problem and problem.get("code") == "too_large" and len(tally.batch) > 1:
        message += "; set TIDEGATE_MAX_BODY_BYTES here to what it is there, for smaller batches"
    if problem is None:
        return f"{message}\n{tally.sent} already sent, and perhaps the {len(tally.batch)} after them; {AGAIN}"
    if not tally.sent:
        return f"{message}\nNothing was sent."
    rest = f", or only the rest: tail -n +{tally.next_line} {shlex.quote(str(path))} | tidegate send --file -"
    return f"{message}\n{tally.sent} already sent; {AGAIN}{rest if tally.next_line and name == str(path) else ''}"


def _name(path: Path) -> str:
    return "standard input" if str(path) == "-" else str(path)


def _pointed_at(problem: Mapping[str, Any], batch: list[Item]) -> Item | None:
    """The event of the batch that the gateway points at, as `/3/name`; None where it points at none."""
    for fault in problem.get("errors", []):
        index = str(fault["pointer"]).split("/")[1:2]
        if index and index[0].isdecimal() and int(index[0]) < len(batch):
            return batch[int(index[0])]
    return None


def _batches(items: Iterator[Item], most: int) -> Iterator[list[Item]]:
    batch: list[Item] = []
    size = 2
    for item in items:
        length = memoryview(item.text).nbytes + 1
        if batch and (len(batch) == BATCH or size + length > most):
            yield batch
            batch, size = [], 2
        batch.append(item)
        size += length
    if batch:
        yield batch


def _items(file: BufferedReader) -> Iterator[Item]:
    head, number, end = _begin(file)
    if head == b"[":
        yield from _elements(file.read(), number, end)
        return
    first = number + 1
    while line := file.readline():
        number, end, text = number + 1, end + len(line), line.strip()
        if not text:
            continue
        if number == first and head == b"{" and _fault(text):  # one event over many lines, or no JSON Lines at all
            text = line + file.read()
        fault = _fault(text, number)
        if fault:
            raise NotAnEvent(f"line {number}: this is not an event: {fault}")
        yield Item(text, f"line {number}", end, number)


def _begin(file: BufferedReader) -> tuple[bytes, int, int]:
    """The first byte that says something, behind a byte order mark and white space: how many lines and bytes those were."""
    lines = passed = 0
    if file.peek(len(BOM)).startswith(BOM):
        passed += len(file.read(len(BOM)))
    while (head := file.peek(1)[:1]).isspace():
        passed += len(file.read(1))
        lines += head == b"\n"
    return head, lines, passed


def _elements(text: bytes, lines: int, passed: int) -> Iterator[Item]:
    """The events of an array, which is held in memory once: each is a view into it."""
    try:
        found = _array.decode(text)
    except msgspec.DecodeError:
        yield from _read_leniently(text, lines, passed)
        return
    last = end = 0
    for n, element in enumerate(found, 1):
        begin = text.index(bytes(element), end)
        lines += text.count(b"\n", last, begin)
        last, end = begin, begin + memoryview(element).nbytes
        where = f"line {lines + 1}, event {n}"
        fault = _fault(element)
        if fault:
            raise NotAnEvent(f"{where}: this is not an event: {fault}")
        yield Item(element, where, passed + end)


def _read_leniently(text: bytes, lines: int, passed: int) -> Iterator[Item]:
    """The events of an array with lone surrogates, which only Python reads, each written anew."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise NotAnEvent(f"line {lines + error.lineno}: this is not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise NotAnEvent(f"line {lines + 1}: this is not JSON: {error}") from None
    for n, event in enumerate(found, 1):
        again = json.dumps(event).encode()
        fault = _fault(again)
        if fault:
            raise NotAnEvent(f"event {n} of the array: this is not an event: {fault}")
        yield Item(again, f"event {n} of the array", passed + len(text))


def _fault(text: bytes | msgspec.Raw, line: int = 1) -> str:
    """Why this, which begins at `line`, is no JSON object; "" for one."""
    try:
        _object.decode(text)
    except msgspec.ValidationError:
        return f"{bytes(text)[:60].decode('utf-8', 'replace')} is no JSON object"
    except msgspec.DecodeError:
        return _closer(bytes(text), line)
    return ""


def _closer(text: bytes, line: int) -> str:
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        further = f"line {line + error.lineno - 1}, " if error.lineno > 1 else ""
        return f"{error.msg} at {further}column {error.colno}"
    except (ValueError, RecursionError) as error:
        return str(error)
    return "" if codec.is_strict(text) else "JSON has no NaN and no Infinity"
