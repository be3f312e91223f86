"""Tracebacks as whoever wrote the code wants them: with their own frames, and without ours and the import system's."""

from __future__ import annotations

import re
from collections.abc import Iterator

_FRAME = re.compile(r'  File "(?P<file>.*)", line \d+, in ')
_OURS = re.compile(
    r"[/\\]gateway[/\\](?:(?:core|engine|ingest|sdk|store)[/\\]\w+|codec|registry|worker)\.py$"
    r"|^<frozen importlib|[/\\]importlib[/\\]__init__\.py$"
)
_HEADING = "Traceback (most recent call last):"


def authors_part(trace: str) -> str:
    """A formatted traceback without our frames; a heading that is left without frames goes too."""
    lines = list(_without_ours(trace.splitlines()))
    following = [*lines[1:], ""][: len(lines)]
    kept = [line for line, next_ in zip(lines, following, strict=True) if line != _HEADING or next_.startswith("  ")]
    return "\n".join(kept).strip("\n")


def _without_ours(lines: list[str]) -> Iterator[str]:
    skipping = False
    for line in lines:
        frame = _FRAME.match(line)
        if frame is not None:
            skipping = _OURS.search(frame["file"]) is not None
        elif not line.startswith(("    ", "  [Previous line")):
            skipping = False
        if not skipping:
            yield line
