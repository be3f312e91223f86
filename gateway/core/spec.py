"""What the gateway knows of a function: data that whoever executes it publishes to the database."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class CancelSpec(msgspec.Struct, frozen=True, kw_only=True):
    """An event that cancels a run."""

    name: str
    match: str | None = None
    if_: str | None = None
    timeout_seconds: float | None = None


class FunctionSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One function, as published: its id, which event names trigger it, and how it is run."""

    id: str
    on: tuple[str, ...]
    if_: str | None = None
    retries: int = 4
    timeout_seconds: float | None = None
    origin: str = ""
    description: str = ""
    version: int | None = None
    start_seconds: float | None = None
    finish_seconds: float | None = None
    idempotency: str | None = None
    idempotency_seconds: float = 86400.0
    cancel_on: tuple[CancelSpec, ...] = ()
    on_failure: str | None = None

    @property
    def queued_as(self) -> str:
        """What its runs are claimed by: they go on with the version that began them."""
        return self.id if self.version is None else f"{self.id}@{self.version}"

    @property
    def attempts(self) -> int:
        """How many attempts a run gets: the first and its retries."""
        return self.retries + 1


def version_of(queued_as: str) -> int | None:
    """The version in what a run is queued as."""
    version = queued_as.partition("@")[2]
    return int(version) if version else None


def current(specs: Iterable[FunctionSpec]) -> dict[str, FunctionSpec]:
    """By id, the version of each function that new runs get: the highest."""
    found: dict[str, FunctionSpec] = {}
    for spec in specs:
        if spec.id not in found or (spec.version or 0) > (found[spec.id].version or 0):
            found[spec.id] = spec
    return found


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


def merged(published: Iterable[tuple[str, Manifest]]) -> dict[str, Manifest]:
    """Of each app one manifest, from all that was published by it: of what is there twice the last one counts."""
    found: dict[str, Manifest] = {}
    for app, manifest in published:
        before = found.get(app, Manifest())
        found[app] = Manifest(
            specs=tuple({spec.queued_as: spec for spec in (*before.specs, *manifest.specs)}.values()),
            broken=tuple(dict.fromkeys((*before.broken, *manifest.broken))),
            events=tuple({event.name: event for event in (*before.events, *manifest.events)}.values()),
        )
    return found
