"""JSON in and out. Whatever arrived is kept as bytes; these functions only look at it."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast, get_origin

import msgspec

from gateway.errors import DeclarationError, PayloadMismatch

T = TypeVar("T")

_decoder = msgspec.json.Decoder()
_raw_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def loads(raw: bytes) -> Any:
    """Any JSON text as Python values; integers of any size, lone surrogates and duplicate keys (the last wins) included.

    Raises ValueError when it is not JSON at all.
    """
    try:
        return _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _nested(json.loads, raw)
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None


def loads_text(raw: bytes) -> Any:
    """As `loads`, with lone surrogates replaced by `?`: for readers that only take real Unicode."""
    value = loads(raw)
    try:
        msgspec.json.encode(value)
    except UnicodeEncodeError:
        return json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    return value


def _nested(read: Callable[[bytes], Any], raw: bytes) -> Any:
    try:
        return read(raw)
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None


def is_json(raw: bytes) -> bool:
    """Whether `raw` is JSON that `loads` reads."""
    try:
        loads(raw)
    except ValueError:
        return False
    return True


def is_unicode(text: str) -> bool:
    """Whether it has no lone surrogates, which JSON can say, and which no database keeps and no terminal shows."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_strict(raw: bytes) -> bool:
    """Whether `raw` is JSON as RFC 8259 has it: `loads` also reads NaN and Infinity, which other readers refuse."""
    try:
        raw.decode()
        json.loads(raw, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return False
    return True


def _no_constant(name: str) -> None:
    raise ValueError(f"JSON has no {name}")


def dumps(value: Any) -> bytes:
    """Compact JSON of plain values, dataclasses, msgspec structs and pydantic models.

    Raises DeclarationError when a value has no JSON form.
    """
    try:
        return msgspec.json.encode(value, enc_hook=_plain)
    except (TypeError, UnicodeEncodeError) as error:
        try:
            return json.dumps(value, separators=(",", ":")).encode()
        except (TypeError, ValueError, RecursionError):
            raise DeclarationError(f"this value cannot be kept as JSON: {error}") from None


def _plain(value: object) -> object:
    if _is_pydantic(type(value)):
        return cast(Any, value).model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} has no JSON form; return dicts, lists, strings, numbers, structs or models")


def member(raw: bytes, path: str) -> bytes:
    """The exact bytes of the value at a dotted path of object members; `""` is the whole text.

    Raises ValueError when there is no such member.
    """
    for name in filter(None, path.split(".")):
        try:
            raw = bytes(_nested(_raw_members.decode, raw)[name])
        except msgspec.DecodeError:
            raw = _slow_member(raw, name)
        except KeyError:
            raise ValueError(f"there is no `{name}`") from None
    return raw


def _slow_member(raw: bytes, name: str) -> bytes:
    value = loads(raw)
    if not isinstance(value, dict) or name not in value:
        raise ValueError(f"there is no `{name}`")
    return json.dumps(value[name], separators=(",", ":")).encode()


def decode_as(kind: type[T] | Any, raw: bytes, what: str = "the data") -> T:
    """`raw` as a value of `kind`: a msgspec struct, dataclass, TypedDict, any type msgspec knows, a pydantic model, and any of
    these inside of one another.

    Unknown members are ignored. Raises PayloadMismatch, naming `what` and the path, when a promised type is not kept, and
    TypeError for a type that JSON has no form for.
    """
    if kind is Any:
        return cast(T, loads(raw))
    if _is_pydantic(kind):
        return _decode_model(kind, raw, what)
    try:
        return msgspec.json.decode(raw, type=cast(type[T], kind), dec_hook=_inner)
    except msgspec.ValidationError as error:
        raise _mismatch(what, kind, error) from None
    except msgspec.DecodeError:
        return _decode_plain(kind, raw, what)
    except TypeError:  # a union that msgspec cannot tell apart
        return _decode_model(kind, raw, what)


def schema(kind: Any) -> dict[str, Any]:
    """The JSON Schema of a type as `decode_as` takes it; empty where there is none to be had."""
    try:
        return _model_schema(kind) if _is_pydantic(kind) else msgspec.json.schema(kind)
    except (TypeError, ValueError):
        return _model_schema(kind)


def _decode_plain(kind: Any, raw: bytes, what: str) -> Any:
    try:
        plain = loads(raw)
    except ValueError:
        raise PayloadMismatch(f"{what} is not JSON, and so does not fit {_name(kind)}") from None
    try:
        return msgspec.convert(plain, type=kind, dec_hook=_inner)
    except ValueError as error:
        raise _mismatch(what, kind, error) from None


def _inner(kind: Any, value: Any) -> Any:
    """A pydantic model inside of a type that is none, from plain values. Other types are left to msgspec, which refuses them."""
    if not _is_pydantic(kind):
        return value
    from pydantic import TypeAdapter

    # As JSON: from Python values a strict model takes no text for a time.
    return TypeAdapter(kind).validate_json(dumps(value))


def _mismatch(what: str, kind: Any, error: Exception) -> PayloadMismatch:
    _, at, place = str(error).rpartition(" - at `$")
    inner: Any = error.__cause__
    reason = _first(inner, place.removesuffix("`") if at else "") if hasattr(inner, "errors") else str(error)
    return PayloadMismatch(f"{what} does not fit {_name(kind)}: {reason}")


def _first(error: Any, above: str = "") -> str:
    """What a pydantic ValidationError says first, and where; `above` is the path to the model."""
    first = error.errors()[0]
    return f"{first['msg']} - at `${above}{''.join(f'.{name}' for name in first['loc'])}`"


def _is_pydantic(kind: Any) -> bool:
    """Where nobody has loaded pydantic nothing is made of it, and a process that goes without saves its memory."""
    if "pydantic" not in sys.modules or not isinstance(kind, type):
        return False
    from pydantic import BaseModel
    from pydantic.dataclasses import is_pydantic_dataclass

    return issubclass(kind, BaseModel) or is_pydantic_dataclass(cast(type[Any], kind))


def _decode_model(kind: Any, raw: bytes, what: str) -> Any:
    if "pydantic" not in sys.modules:
        raise TypeError(f"{_name(kind)} has no JSON form")
    from pydantic import PydanticUserError, TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_json(raw)
    except ValidationError as error:
        raise PayloadMismatch(f"{what} does not fit {_name(kind)}: {_first(error)}") from None
    except PydanticUserError:
        raise TypeError(f"{_name(kind)} has no JSON form") from None


def _model_schema(kind: Any) -> dict[str, Any]:
    if "pydantic" not in sys.modules:
        return {}
    from pydantic import PydanticUserError, TypeAdapter

    try:
        return TypeAdapter(kind).json_schema()
    except PydanticUserError:
        return {}


def _name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and get_origin(kind) is None else inspect.formatannotation(kind)
