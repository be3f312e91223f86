"""The tables in docs/ that follow the code line by line; `python -m tests.docs.tables` writes them down anew."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator
from typing import Any

import typer.main
from litestar.handlers import HTTPRouteHandler

import gateway.api
from gateway.api.problems import PROBLEMS
from gateway.cli import application
from gateway.observe.logs import ENDED, SENTENCES
from tests.docs.pages import table_in
from tests.processes import ROOT

WITHOUT_PREFIX = ("health", "metrics")


def commands() -> list[str]:
    """Every command: its arguments, its options, the first line of its help."""
    return list(_commands(typer.main.get_command(application()), "tidegate"))


def _commands(command: Any, path: str) -> Iterator[str]:
    arguments = [one.metavar or one.name.upper() for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and not one.hidden and "--help" not in one.opts]
    shown = ", ".join("`" + "`/`".join([*one.opts, *one.secondary_opts]) + "`" for one in options)
    if path != "tidegate":
        yield f"| `{' '.join([path, *arguments])}` | {shown} | {_first(command.help)} |"
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, f"{path} {name}")


def endpoints() -> list[str]:
    """Every route: its scope, the first line of its docstring."""
    found: list[tuple[str, str, str, str]] = []
    for _, name, _ in pkgutil.iter_modules(gateway.api.__path__):
        for handler in vars(importlib.import_module(f"gateway.api.{name}")).values():
            if isinstance(handler, HTTPRouteHandler) and handler.fn.__module__ == f"gateway.api.{name}":
                path = ("" if name in WITHOUT_PREFIX else "/api/v1") + re.sub(r":\w+\}", "}", next(iter(handler.paths)))
                scope = "none" if {} in (handler.security or []) else f"`{handler.opt.get('scope', 'read')}`"
                found += [(path, method, scope, _first(handler.fn.__doc__)) for method in sorted(handler.http_methods) if method != "HEAD"]
    return [f"| `{method} {path}` | {scope} | {text} |" for path, method, scope, text in sorted(found)]


def problems() -> list[str]:
    """Every code of an error: its status, what it says where there is nothing more exact to say."""
    return [
        f"| `{code}` | {status} | {text} |" for code, (status, _, text) in sorted(PROBLEMS.items(), key=lambda item: (item[1][0], item[0]))
    ]


def facts() -> list[str]:
    """Every fact that is logged: its level and its sentence."""
    told = [*SENTENCES.items(), *(("run.ended", words) for words in ENDED.values())]
    return [f"| `{fact}` | {level} | {sentence} |" for fact, (level, sentence) in sorted(told) if level != "debug"]


def _first(text: str | None) -> str:
    return (text or "").partition("\n")[0].replace("|", "\\|")


TABLES: dict[tuple[str, str], Callable[[], list[str]]] = {
    ("cli.md", "## Every command"): commands,
    ("api.md", "## Every endpoint"): endpoints,
    ("api.md", "## Every error code"): problems,
    ("operations.md", "## What the log says"): facts,
}

if __name__ == "__main__":
    for (page, heading), made in TABLES.items():
        file = ROOT / "docs" / page
        before, after = "\n".join(table_in(page, heading)), "\n".join(made())
        file.write_text(file.read_text().replace(before, after) if before else file.read_text())
