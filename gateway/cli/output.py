"""How the CLI prints: tables and trees for people, the API's JSON with `--json`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.codec import is_unicode
from gateway.errors import InvalidRequest

Json = Annotated[bool, typer.Option("--json", help="Print the API's JSON.")]
Limit = Annotated[int, typer.Option(metavar="N", help="How many, at most 200.")]
Cursor = Annotated[str | None, typer.Option(metavar="CURSOR", help="Go on where the page before ended; its last line has it.")]
Since = Annotated[
    str | None, typer.Option(metavar="TIME", help="Only from this time on: RFC 3339, or how long ago, such as 90s, 30m, 24h or 7d.")
]

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

COLOURS = {
    "succeeded": "green",
    "accepted": "green",
    "failed": "red",
    "quarantined": "red",
    "running": "cyan",
    "waiting": "yellow",
    "queued": "yellow",
    "skipped": "dim",
    "cancelled": "dim",
}

MOST_OF_A_KEY = 40

console = Console(highlight=False, soft_wrap=True)


def several(metavar: str, help: str) -> Any:
    """A filter that may be repeated."""
    return typer.Option(metavar=metavar, help=f"{help}; may be repeated.")


Names = Annotated[list[str] | None, several("NAME", "Only events of this name, such as stripe/invoice.paid; `*` is a wildcard")]
Sources = Annotated[list[str] | None, several("SOURCE", "Only from this source; `*` is a wildcard")]
Functions = Annotated[list[str] | None, several("FUNCTION", "Only of this function; `*` is a wildcard")]


def counted(n: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def unoffered(function_id: str, version: int | None) -> str:
    """Whom runs wait for in vain, and how to bring it back."""
    if version is None:
        return f"function {function_id!r}, which nobody offers: bring it back, or start the worker that has it"
    return f"version {version} of function {function_id!r}, which nobody offers: declare it again beside the new one"


def shortened(key: str) -> str:
    """An idempotency key for a table: those that are hashes are long, and nobody types them."""
    return key if len(key) <= MOST_OF_A_KEY else key[: MOST_OF_A_KEY - 1] + "…"


def span(text: str) -> timedelta | None:
    """`90s`, `30m`, `24h` or `7d` as a time span; None for anything else."""
    match = re.fullmatch(r"(\d{1,9})([smhd])", text)
    return timedelta(**{UNITS[match[2]]: int(match[1])}) if match else None


def earlier(text: str) -> str:
    """A `--since` as RFC 3339 in UTC."""
    ago = span(text)
    if ago is not None:
        return (datetime.now(UTC) - ago).isoformat()
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(f"{text!r} is neither a time such as 2026-11-24T08:00:00Z nor a span such as 90s, 30m, 24h or 7d") from None
    return when.astimezone(UTC).isoformat()


def print_json(value: Any) -> None:
    """The API's JSON, indented."""
    typer.echo(as_text(value))


def as_text(value: Any) -> str:
    """Indented JSON of a value, or of JSON text as it stands; with escapes where a terminal could not show it."""
    if isinstance(value, bytes):
        try:
            return msgspec.json.format(value, indent=2).decode()
        except msgspec.DecodeError:  # lone surrogates are beyond it
            value = json.loads(value)
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return text if is_unicode(text) else json.dumps(value, indent=2)


def none_found(noun: str, hint: str, **filters: str | list[str] | None) -> str:
    """What to say of an empty list: which filter nothing matches, or else how to get a first one."""
    given = {name: [values] if isinstance(values, str) else values for name, values in filters.items() if values}
    if not given:
        return f"No {noun} yet. {hint}"
    return f"No {noun} match " + " ".join(f"--{name} {value}" for name, values in given.items() for value in values)


def print_list(found: Mapping[str, Any], columns: Mapping[str, str], empty: str) -> None:
    """A page as a table: heading -> field; `empty` is said when there is nothing."""
    rows: Sequence[Mapping[str, Any]] = found["data"]
    if not rows:
        console.print(empty, markup=False)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in columns:
        table.add_column(heading, no_wrap=True)
    for row in rows:
        table.add_row(*(cell(row.get(field)) for field in columns.values()))
    # Ids are there to be copied: a narrow terminal wraps its lines, nothing is cut.
    width = Console(width=10_000).measure(table).maximum
    Console(highlight=False, width=max(console.width, width)).print(table, crop=False)
    if found.get("has_more"):
        console.print(Text("There are more: --limit, or --cursor " + str(found["next_cursor"]), style="dim"))


def cell(value: Any) -> Text:
    """One value; times without their date's noise, statuses in colour."""
    if value is None:
        return Text("-", style="dim")
    if isinstance(value, list):
        return Text(", ".join(map(str, value)))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    text = str(value)
    return Text(text, style=COLOURS.get(text, ""))


def error_line(error: Mapping[str, Any] | None) -> str:
    """An error in one line."""
    return f"{error['type']}: {error['message']}".partition("\n")[0] if error else ""


def attempt_line(attempt: Mapping[str, Any]) -> str:
    """An ended attempt in one line: number, start, end, outcome."""
    took = f"{attempt['started_at']} to {attempt['finished_at']} ({attempt['duration_ms']} ms)"
    return f"attempt {attempt['number']}  {took}  {attempt['outcome']}"


def cut_off(attempt: Mapping[str, Any], *, last: bool) -> str | None:
    """What became of the steps that were under way in an attempt that could not end by itself; `last`: none came after it."""
    if attempt["outcome"] not in ("lease_lost", "handed_back"):
        return None
    if last:
        return "what it had begun and not committed may have happened all the same"
    return "what it had begun and not committed is begun again"


def is_by_hand(attempt: Mapping[str, Any], before: Mapping[str, Any] | None) -> bool:
    """Whether somebody retried the run between two of its attempts: they count from 1 again then. One that was handed back
    is made again under its number."""
    return before is not None and attempt["number"] <= before["number"] and before["outcome"] != "handed_back"


def print_error(error: Mapping[str, Any]) -> None:
    """The message first, then where in the author's code it happened."""
    from gateway.traces import authors_part

    said = f"{error['type']}: {error['message']}".rstrip(": ")
    trace = authors_part(error["traceback"])
    rows = said.split("\n") + (trace.split("\n") if "  File " in trace else [])
    console.print("\n".join(f"    {row}" for row in rows), markup=False)
