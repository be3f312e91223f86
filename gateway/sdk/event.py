"""Typed events: a class per event name, whose type argument is the type of its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Generic, cast, get_args, get_origin

from typing_extensions import TypeVar

from gateway import codec
from gateway.core.names import check_name, check_sendable
from gateway.core.steps import NewEvent
from gateway.errors import DeclarationError

D = TypeVar("D", default=Any)


@dataclass(frozen=True, kw_only=True)
class Event(Generic[D]):
    """One fact that arrived. `data` is what the third party said, typed by the class; times are aware and in UTC.

    Subclass it to give an event name a type::

        class UserCreated(Event[User], name="user/created"): ...

    `Event` itself stands for any event, with plain JSON values as its data.
    """

    id: str
    name: str
    data: D
    source: str
    occurred_at: datetime
    received_at: datetime
    attributes: Mapping[str, Any]

    event_name: ClassVar[str] = ""
    sample: ClassVar[Mapping[str, Any] | None] = None

    def __init_subclass__(cls, *, name: str = "", **rest: Any) -> None:
        super().__init_subclass__(**rest)
        if name:
            check_name(f"the name of class {cls.__name__}", name)
            cls.event_name = name

    @classmethod
    def data_type(cls) -> Any:
        """The type of `data`, as the class declares it."""
        return _data_type(cls)

    @classmethod
    def data_schema(cls) -> dict[str, Any]:
        """The JSON Schema of the data; empty, which is anything, where its type has none."""
        return codec.schema(cls.data_type())

    @classmethod
    def new(cls, data: D, *, id: str | None = None) -> NewEvent:
        """An event of this class to send; `id` makes it the same event when it is sent again."""
        if not cls.event_name:
            raise DeclarationError(f"{cls.__name__} has no event name; use new_event(name, data)")
        check_sendable(cls.event_name)
        return NewEvent(cls.event_name, codec.dumps(data), id)

    @classmethod
    def decode(
        cls,
        raw: bytes,
        *,
        id: str,
        name: str,
        source: str,
        occurred_at: datetime,
        received_at: datetime,
        attributes: Mapping[str, Any],
    ) -> Event[D]:
        """An event of this class from the JSON of its data. Raises PayloadMismatch, naming the path, if it does not fit."""
        return cls(
            id=id,
            name=name,
            data=codec.decode_as(cls.data_type(), raw, "the event's data"),
            source=source,
            occurred_at=occurred_at,
            received_at=received_at,
            attributes=attributes,
        )


def declared_events(module: Mapping[str, object]) -> tuple[type[Event[Any]], ...]:
    """The named event classes among a module's `globals()`, for a provider's `events`."""
    kinds = [cast(type[Event[Any]], kind) for kind in module.values() if isinstance(kind, type) and issubclass(kind, Event)]
    return tuple(kind for kind in kinds if kind.event_name)


def _data_type(cls: Any) -> Any:
    if cls is Event:
        return Any
    for base in getattr(cls, "__orig_bases__", cls.__bases__):
        origin: Any = get_origin(base) or base
        if origin is Event:
            args = get_args(base)
            return args[0] if args and not isinstance(args[0], TypeVar) else (args[0] if args else Any)
        if isinstance(origin, type) and issubclass(origin, Event):
            inner = _data_type(origin)
            parameters = getattr(inner, "__parameters__", ())
            if isinstance(inner, TypeVar):
                return get_args(base)[0]
            return inner[get_args(base)] if parameters and get_args(base) else inner
    return Any
