"""What an event may be called: one rule for what is declared, waited for, sent by a step and sent to the API."""

from __future__ import annotations

import re
from typing import Any

from gateway.errors import DeclarationError

MAX_NAME = 200
MAX_SIGNAL = 200
RESERVED = "tidegate/"
SENDABLE = rf"^(?!{RESERVED})[A-Za-z0-9_.:-]+(/[A-Za-z0-9_.:-]+)+$"

_SENDABLE = re.compile(SENDABLE.removesuffix("$"))
_ARRIVING = re.compile(r"(?=[^/]*/)[\w.:/-]+", re.ASCII)
_PATTERN = re.compile(r"\*|(?=[^/]*/)[\w.:/*-]+", re.ASCII)


def check_pattern(what: str, name: str) -> None:
    """An event name, or a wildcard for several. Raises DeclarationError, which begins with `what`."""
    if not _fits(_PATTERN, name):
        raise DeclarationError(f"{what}: {name!r} is neither an event name, such as `user/created`, nor a wildcard")


def check_name(what: str, name: Any, instead: str = "") -> None:
    """The name of one event, which a provider may have made. Raises DeclarationError, which begins with `what`; for a wildcard
    it says what to do `instead`."""
    if isinstance(name, str) and "*" in name:
        raise DeclarationError(f"{what}: {name!r} is a wildcard; name one event, such as `user/created`{instead}")
    if not isinstance(name, str) or not _fits(_ARRIVING, name):
        raise DeclarationError(f"{what}: {name!r} is no event name: use letters, digits, `_.-:` and a `/`, as in `user/created`")


def refusal(name: Any) -> str | None:
    """Why nobody but Tidegate may send an event of this name; None where anybody may."""
    if isinstance(name, str) and name.startswith(RESERVED):
        return f"Event name {name!r}: what begins with `{RESERVED}` is sent by Tidegate alone; choose another first part."
    if not isinstance(name, str) or not _fits(_SENDABLE, name):
        return f"Event name {name!r}: use letters, digits, `_.-:` and a `/`, as in `user/created`."
    return None


def check_sendable(name: Any) -> None:
    """Raises DeclarationError where an author may not send an event of this name."""
    reason = refusal(name)
    if reason is not None:
        raise DeclarationError(reason)


def _fits(rule: re.Pattern[str], name: str) -> bool:
    return len(name) <= MAX_NAME and rule.fullmatch(name) is not None
