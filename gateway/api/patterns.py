"""What texts from outside must look like, as regular expressions for OpenAPI and in words for people."""

from __future__ import annotations

from collections.abc import Mapping

RFC_3339 = r"^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)$"
CURSOR = r"^[A-Za-z0-9_-]+$"
WORD = r"^[^\x00]*$"
SOURCE_NAME = r"^[a-z0-9][a-z0-9-]{0,62}$"
SECRET_TEXT = r"^[^\x00-\x20\x7f]([^\x00-\x1f\x7f]{0,998}[^\x00-\x20\x7f])?$"  # noqa: S105
EVENT_ID = r"^[^\x00-\x1f\x7f]{1,255}$"

IN_WORDS: Mapping[str, str] = {
    RFC_3339: "that is a time such as 2026-11-24T08:00:00Z",
    CURSOR: "that is a cursor from an earlier page",
    WORD: "without NUL characters",
    SOURCE_NAME: "of up to 63 lower-case letters, digits and `-`",
    SECRET_TEXT: "of 1 to 1,000 printable characters, without white space around it",
    EVENT_ID: "of 1 to 255 printable characters",
}


def in_words(message: str) -> str:
    """A message of msgspec with its regular expressions in words."""
    for pattern, words in IN_WORDS.items():
        message = message.replace(f"matching regex {pattern!r}", words)
    return message
