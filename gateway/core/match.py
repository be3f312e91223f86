"""Which functions an event triggers: exact names, wildcards, and an `if` in CEL (https://cel.dev)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from gateway.core.spec import FunctionSpec
from gateway.errors import DeclarationError

CACHED_NAMES = 10_000
# Variables that CEL's macros bind, as in `event.data.items.all(item, item.price > 0)`.
_BOUND = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter)\s*\(\s*(\w+)\s*,")
MEMBERS = ("id", "name", "source", "attributes", "data")
IF_ERROR = "if_error"


class Match(msgspec.Struct, frozen=True):
    """One function whose trigger names the event; `skip_reason` says why it gets no run all the same."""

    function_id: str
    skip_reason: str | None = None


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """`stripe/invoice.*` as a regular expression: `*` stands for any characters, everything else for itself."""
    return re.compile("".join(".*" if part == "*" else re.escape(part) for part in re.split(r"(\*)", pattern)))


@lru_cache(maxsize=1000)
def compile_condition(source: str, variables: tuple[str, ...] = ("event",), option: str = "if_") -> Any:
    """A CEL program over events. Raises DeclarationError, naming what is wrong in which `option`, when it is not one."""
    try:
        import cel  # it brings a command line of its own along, which takes 15 MB

        program = cel.compile(source)
        used = set(program.variables())
    except Exception as error:
        raise DeclarationError(f"`{option}` is not a valid CEL expression: {source!r}: {error}") from None
    unknown = sorted(used - {*variables, *_BOUND.findall(source)})
    if unknown:
        raise DeclarationError(f"`{option}` knows no variable `{unknown[0]}`, only {' and '.join(f'`{v}`' for v in variables)}: {source!r}")
    members = [name for name in re.findall(rf"\b(?:{'|'.join(variables)})\.(\w+)", source) if name not in MEMBERS]
    if members:
        raise DeclarationError(f"`{option}`: an event has {', '.join(MEMBERS)}, but no `{members[0]}`: {source!r}")
    if variables[-1] not in used:
        raise DeclarationError(f"`{option}` asks nothing of `{variables[-1]}`: {source!r}")
    return program


def listens(spec: FunctionSpec, name: str) -> bool:
    """Whether an event of this name triggers a function, whatever its `if_` says."""
    return any(compile_pattern(pattern).fullmatch(name) for pattern in spec.on)


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
        self._by_name: dict[str, list[tuple[Match, Any]]] = {}

    def match(self, name: str, event: Callable[[], dict[str, Any]]) -> Sequence[Match]:
        """The functions for an event name; `event` builds the CEL variable and is called only where an `if_` asks."""
        rules = self._by_name.get(name)
        if rules is None:
            rules = [(Match(id_), condition) for id_, names, condition in self._rules if any(p.fullmatch(name) for p in names)]
            if len(self._by_name) < CACHED_NAMES:
                self._by_name[name] = rules
        return [Match(match.function_id, _skip_reason(condition, event)) if condition else match for match, condition in rules]


def _skip_reason(condition: Any, event: Callable[[], dict[str, Any]]) -> str | None:
    try:
        answer = condition.execute({"event": event()})
    except KeyError as error:
        # A missing member is an everyday thing in webhooks: it does not match, and the delivery says why.
        return f"{IF_ERROR}: there is no {error}"
    except Exception as error:
        return f"{IF_ERROR}: {str(error)[:300]}"
    if not isinstance(answer, bool):
        return f"{IF_ERROR}: it is neither true nor false, but a {type(answer).__name__}"
    return None if answer else "if_false"
