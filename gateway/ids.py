"""Ids: a lower-case prefix, `_`, and a ULID, so that they sort by time and say what they name."""

from __future__ import annotations

import random
import secrets
import time
from functools import lru_cache

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

_PAIRS = [high + low for high in ALPHABET for low in ALPHABET]


def new_id(prefix: str) -> str:
    """A new id such as `evt_01JD3Z…`, unique and no secret. Several are made for every webhook: a library took a seventh
    of its time, and asking the kernel for chance hands the interpreter to another thread each time."""
    return f"{prefix}_{_time(time.time_ns() // 1_000_000)}{_rest(random.getrandbits(80))}"


def sibling(prefix: str, id_: str) -> str:
    """The id of another kind with the same ULID: an event has its request's."""
    return prefix + id_[id_.index("_") :]


def first_id(prefix: str, millis: int) -> str:
    """The smallest id that is made at this time or later, in milliseconds since the epoch."""
    return f"{prefix}_{_time(max(millis, 0))}{_rest(0)}"


# https://github.com/ulid/spec: 48 bits of time and 80 random ones, in Crockford's base 32; two digits at a time.


@lru_cache(maxsize=4)
def _time(millis: int) -> str:
    return "".join([_PAIRS[millis >> shift & 1023] for shift in range(40, -1, -10)])


def _rest(number: int) -> str:
    p, a, b = _PAIRS, number >> 40, number & 0xFF_FFFF_FFFF
    return f"{p[a >> 30]}{p[a >> 20 & 1023]}{p[a >> 10 & 1023]}{p[a & 1023]}{p[b >> 30]}{p[b >> 20 & 1023]}{p[b >> 10 & 1023]}{p[b & 1023]}"


def new_api_key() -> str:
    """A new API key: `tg_` and 256 random bits."""
    return "tg_" + secrets.token_urlsafe(32)
