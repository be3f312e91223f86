"""The pages of docs/ and the README as data: their tables and code blocks; and the command line as they show it."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer.main

from gateway.cli import application
from tests.processes import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_FENCE = re.compile(r"^```(\S*)[ \t]*([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced code block: where it stands, its language, what else its fence says, its text."""

    page: Path
    line: int
    language: str
    more: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(language: str, more: str | None = None) -> list[Block]:
    """Every block of a language; of those, the ones whose fence says `more` beside it."""
    return [block for page in PAGES for block in _blocks(page) if block.language == language and more in (None, block.more)]


def _blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in _FENCE.finditer(text):
        yield Block(page, text.count("\n", 0, found.start()) + 1, found[1], found[2].strip(), found[3])


def block_after(page: str, heading: str, language: str) -> str:
    """The first block of a language under a heading."""
    found = _FENCE.search(section(page, heading))
    assert found is not None
    assert found[1] == language
    return found[3].rstrip("\n")


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table_in(page, heading)]


def table_in(page: str, heading: str) -> list[str]:
    """The lines of the first table under a heading, without its head."""
    lines = iter(section(page, heading).splitlines())
    table = itertools.takewhile(lambda line: line.startswith("|"), itertools.dropwhile(lambda line: not line.startswith("|"), lines))
    return list(table)[2:]


def code(cell: str) -> str:
    """What stands in the first backticks of a cell."""
    found = re.search(r"`([^`]+)`", cell)
    assert found is not None, f"no `code` in {cell!r}"
    return found[1]


def section(page: str, heading: str) -> str:
    """The text under a heading, up to the next one of its level or a higher one."""
    text = (ROOT / "docs" / page).read_text()
    level = heading.split(" ", maxsplit=1)[0]
    found = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"{page} has no heading {heading!r}"
    return found[1]


def commands(block: Block) -> Iterator[list[str]]:
    """The arguments of every `tidegate …` in a shell block."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
        words.whitespace_split = True
        command: list[str] = []
        for word in [*words, ";"]:
            if set(word) <= set("();<>|&"):
                if (arguments := _arguments(command)) is not None:
                    yield arguments
                command = []
            else:
                command.append(word)


def _arguments(command: list[str]) -> list[str] | None:
    """What `tidegate` is given in a command, with variables, `sudo -u USER` or `docker … exec SERVICE` before it or not."""
    while command and (command[0] == "sudo" or "=" in command[0]):
        command = command[3 if command[0] == "sudo" else 1 :]
    if command[:1] == ["docker"]:
        command = command[command.index("exec") + 2 :] if "exec" in command else []
    return command[1:] if command and Path(command[0]).name == "tidegate" else None


def parse(arguments: Sequence[str]) -> None:
    """Parse a command line as `tidegate` does, without doing anything. Raises the usage error that it would show."""
    command: Any = typer.main.get_command(application())
    context, rest = None, list(arguments)
    while True:
        context = command.make_context(command.name or "tidegate", rest, parent=context)
        if not hasattr(command, "commands"):
            return
        rest = [*context._protected_args, *context.args]
        if not rest:
            return
        _, command, rest = command.resolve_command(context, rest)
