"""What the gateway knows of a function: data that whoever executes it publishes to the database."""

from __future__ import annotations

import msgspec


class FunctionSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One function, as published: its id, which event names trigger it, and how it is run."""

    id: str
    on: tuple[str, ...]
    if_: str | None = None
    retries: int = 4
    timeout_seconds: float | None = None
    origin: str = ""
    description: str = ""

    @property
    def attempts(self) -> int:
        """How many attempts a run gets: the first and its retries."""
        return self.retries + 1


class BrokenModule(msgspec.Struct, frozen=True):
    """A module of functions that was left out, and why."""

    file: str
    message: str


class EventSpec(msgspec.Struct, frozen=True, kw_only=True):
    """An event name that a class declares, with the JSON Schema of its data and a sample of it, `null` where there is none."""

    name: str
    schema: msgspec.Raw
    sample: msgspec.Raw = msgspec.Raw(b"null")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """All that an app publishes, as one value."""

    specs: tuple[FunctionSpec, ...] = ()
    broken: tuple[BrokenModule, ...] = ()
    events: tuple[EventSpec, ...] = ()
