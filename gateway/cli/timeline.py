"""A run's steps as a tree: in the order they began, those of `step.map` and of loops under their common id, tries below."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.tree import Tree

_MEMBER = re.compile(r"(?P<id>.+?)(?:/\d+|#\d+)$")
_WAITS = {"event": "waits for", "signal": "waits for signal", "invoke": "run"}


def timeline(steps: Sequence[Mapping[str, Any]]) -> Tree:
    """The tree, to be printed by rich."""
    from rich.tree import Tree

    tree = Tree("steps")
    families: dict[str, Tree] = {}
    heads = {step["key"] for step in steps}
    for step in steps:
        found = _MEMBER.match(step["key"])
        family = found["id"] if found else step["key"]
        above = families.get(family, tree) if found else tree
        if found and family not in families and family not in heads:
            above = families[family] = tree.add(family)
        branch = above.add(_line(step))
        families.setdefault(step["key"], branch)
        for tried in step["attempt_list"]:
            branch.add(_text(f"try {tried['number']}  {tried['error']['type']}: {tried['error']['message']}".partition("\n")[0], "red"))
    return tree


def _line(step: Mapping[str, Any]) -> Any:
    from gateway.cli.output import COLOURS

    parts = [step["key"], step["status"]]
    if step["kind"] != "run":
        parts.insert(1, step["kind"] if step["subject"] is None else f"{_WAITS.get(step['kind'], step['kind'])} {step['subject']}")
    if step["duration_ms"] is not None:
        parts.append(f"{step['duration_ms']} ms")
    if step["attempts"] > 1:
        parts.append(f"{step['attempts']} tries")
    if step["status"] in ("waiting", "retrying") and step["due_at"]:
        parts.append(f"until {step['due_at']}")
    return _text("  ".join(parts), COLOURS.get(step["status"], ""))


def _text(text: str, style: str) -> Any:
    from rich.text import Text

    return Text(text, style=style)
