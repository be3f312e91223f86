"""Ids: a lower-case prefix, `_`, and a ULID, so that they sort by time and say what they name."""

from __future__ import annotations

import secrets

from ulid import ULID


def new_id(prefix: str) -> str:
    """A new id such as `evt_01JD3Z…`."""
    return f"{prefix}_{ULID()}"


def new_api_key() -> str:
    """A new API key: `tg_` and 256 random bits."""
    return "tg_" + secrets.token_urlsafe(32)
