"""Which event a wait is for, as an index lookup: the equality that is asked for, lifted out of the expression and hashed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from gateway.core.match import compile_condition
from gateway.core.steps import Condition
from gateway.errors import DeclarationError

_PATH = r"data(?:\.\w+)+"
_EQUALITY = re.compile(rf"^\s*(?:async\.({_PATH})\s*==\s*event\.({_PATH})|event\.({_PATH})\s*==\s*async\.({_PATH}))\s*$")
_MISSING = object()


def value_at(event: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path in an event's variables; a private object where there is none."""
    value: Any = event
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return _MISSING
        value = value[name]  # pyright: ignore[reportUnknownVariableType]
    return value  # pyright: ignore[reportUnknownVariableType]


def hash_at(event: Mapping[str, Any], path: str) -> bytes | None:
    """16 bytes for an event's name and its value at `path`; None where it has no such value, or only an empty one.

    Numbers that CEL calls equal hash alike: 1 and 1.0.
    """
    if not path:
        return _hash(event["name"], "", b"")
    value = value_at(event, path)
    if value is _MISSING or value is None:
        return None
    try:
        return _value_hash(event["name"], path, value)
    except (RecursionError, ValueError):  # a value so deep that it cannot be written down equals nothing
        return None


def check_path(what: str, path: Any) -> None:
    """Raises DeclarationError, which begins with `what`, for what is no path into an event's data."""
    if not isinstance(path, str) or not re.fullmatch(_PATH, path):
        raise DeclarationError(f"{what} is a path into the data that both events have, such as `data.order_id`; not {path!r}")


def on_match(name: str, path: str, event: Mapping[str, Any]) -> Condition:
    """The condition that `path` has the same value in the event to come as in this one. Raises DeclarationError."""
    check_path("`match`", path)
    found = hash_at({**event, "name": name}, path)
    if found is None:
        raise DeclarationError(f"`match`: the event {event['name']} has nothing at `{path}`, so that nothing can match it")
    return Condition(name, path, found)


def on_expression(name: str, if_: str, event: Mapping[str, Any]) -> Condition:
    """The condition that a CEL expression over `event` and `async`, the event to come, is true. Raises DeclarationError."""
    compile_condition(if_, ("event", "async"))
    for part in _conjuncts(if_):
        found = _EQUALITY.match(part)
        if found is None:
            continue
        path, own = found.group(1) or found.group(4), found.group(2) or found.group(3)
        value = value_at(event, own)
        if value is not _MISSING and value is not None:
            return Condition(name, path, _value_hash(name, path, value), if_, event)
    return Condition(name, "", _hash(name, "", b""), if_, event)


def any_event(name: str) -> Condition:
    """The condition that any event of this name fulfils."""
    return Condition(name, "", _hash(name, "", b""))


def signal_hash(signal: str) -> bytes:
    """16 bytes for a signal's name; never those of an event."""
    return _hash("", signal, b"signal")


def run_hash(run_id: str) -> bytes:
    """16 bytes for the end of a run; never those of an event or a signal."""
    return _hash("", run_id, b"run")


def fulfils(if_: str | None, variables: Mapping[str, Any], arrived: Mapping[str, Any]) -> bool:
    """Whether the rest of a condition is true for an event whose hash fits; one that cannot be evaluated is not."""
    if if_ is None:
        return True
    try:
        return compile_condition(if_, ("event", "async")).execute({"event": variables, "async": arrived}) is True
    except Exception:  # a member that is missing, or values that cannot be compared
        return False


def _conjuncts(if_: str) -> list[str]:
    """The parts of a plain `a && b && c`, all of which must be true; none of an expression that is more than that."""
    bare = re.sub(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'", "''", if_)
    depth, top = 0, list[str]()
    for char in bare:
        depth += char in "([{"
        top.append(char if depth == 0 else "")
        depth -= char in ")]}"
    plain = "".join(top)
    return [] if "||" in plain or "?" in plain else plain.split("&&")


def _canonical(value: Any) -> Any:
    match value:
        case float() if value.is_integer():
            return int(value)
        case list():
            return [_canonical(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
        case dict():
            return {name: _canonical(item) for name, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
        case _:
            return value


def _value_hash(name: str, path: str, value: Any) -> bytes:
    return _hash(name, path, json.dumps(_canonical(value), sort_keys=True, separators=(",", ":")).encode())


def _hash(name: str, path: str, value: bytes) -> bytes:
    return hashlib.blake2b(b"\0".join([name.encode(), path.encode(), value]), digest_size=16).digest()
