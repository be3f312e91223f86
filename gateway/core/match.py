"""Which functions an event triggers: exact names, wildcards, and an `if` in CEL (https://cel.dev)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import cel
import msgspec

from gateway.core.spec import FunctionSpec
from gateway.errors import DeclarationError

CACHED_NAMES = 10_000


class Match(msgspec.Struct, frozen=True):
    """One function whose trigger names the event; `skip_reason` says why it gets no run all the same."""

    function_id: str
    skip_reason: str | None = None


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """`stripe/invoice.*` as a regular expression: `*` stands for any characters, everything else for itself."""
    return re.compile("".join(".*" if part == "*" else re.escape(part) for part in re.split(r"(\*)", pattern)))


def compile_condition(source: str) -> Any:
    """A CEL program over `event`. Raises DeclarationError when the expression is not valid."""
    try:
        return cel.compile(source)
    except Exception as error:
        raise DeclarationError(f"`if_` is not a valid CEL expression: {source!r}: {error}") from None


class Matcher:
    """Answers which functions of a published set an event triggers."""

    def __init__(self, specs: Iterable[FunctionSpec]) -> None:
        self._rules = [
            (
                spec.id,
                [compile_pattern(name) for name in spec.on],
                compile_condition(spec.if_) if spec.if_ is not None else None,
            )
            for spec in specs
        ]
        self._by_name: dict[str, list[tuple[str, Any]]] = {}

    def match(self, name: str, event: Callable[[], dict[str, Any]]) -> Sequence[Match]:
        """The functions for an event name; `event` builds the CEL variable and is called only where an `if_` asks."""
        rules = self._by_name.get(name)
        if rules is None:
            rules = [(id_, condition) for id_, names, condition in self._rules if any(p.fullmatch(name) for p in names)]
            if len(self._by_name) < CACHED_NAMES:
                self._by_name[name] = rules
        return [Match(id_, _skip_reason(condition, event) if condition else None) for id_, condition in rules]


def _skip_reason(condition: Any, event: Callable[[], dict[str, Any]]) -> str | None:
    try:
        return None if condition.execute({"event": event()}) is True else "if_false"
    except Exception as error:
        # A missing member is an everyday thing in webhooks: it does not match, and the delivery says why.
        return f"if_error: {str(error)[:300]}"
