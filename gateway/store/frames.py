"""What goes over the socket between a gateway and its writer: numbered frames, of which both ends are this program.

A command is MessagePack, because a pickle of a webhook takes five times as long to make and to read; a group's outcomes are a pickle,
because results and errors are of any class.
"""

from __future__ import annotations

import pickle
import struct
from typing import Any

import msgspec

from gateway.store.journal import Command

RECEIVE_BYTES = 1 << 20
_HEAD = struct.Struct("!QQ")

Numbered = tuple[int, Any, Exception | None]  # a command's number, and its outcome


def _builtin(value: object) -> object:
    """A value of a subclass, such as a provider's own kind of text, as what it is to everybody else."""
    kinds: tuple[Any, ...] = (str, bytes, int, float)
    for kind in kinds:
        if isinstance(value, kind):
            return kind.__getnewargs__(value)[0]  # what a copy is made of; its own `__str__` may say something else
    raise TypeError(f"{type(value).__name__} is no kind of value that can be kept")


_encode = msgspec.msgpack.Encoder(enc_hook=_builtin).encode


def command_frame(number: int, command: Command[Any]) -> bytes:
    """Raises ValueError, TypeError or OverflowError when a value in it is none that a database keeps."""
    return _frame(number, _encode(command))


def outcome_frame(told: list[Numbered] | str) -> bytes:
    """The outcomes of a group, or why one takes long."""
    return _frame(0, pickle.dumps(told, pickle.HIGHEST_PROTOCOL))


def read_outcomes(data: bytes) -> Any:
    """What `outcome_frame` was given."""
    return pickle.loads(data)  # noqa: S301


def _frame(number: int, data: bytes) -> bytes:
    return _HEAD.pack(number, len(data)) + data


class Frames:
    """Takes bytes as they come, and gives the frames that are whole."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """What is whole with `data`: numbers, and what came under them."""
        self._buffer += data
        found: list[tuple[int, bytes]] = []
        start, size = 0, _HEAD.size
        with memoryview(self._buffer) as view:
            while len(view) - start >= size:
                number, length = _HEAD.unpack_from(view, start)
                if len(view) - start - size < length:
                    break
                found.append((number, bytes(view[start + size : start + size + length])))
                start += size + length
        del self._buffer[:start]
        return found
