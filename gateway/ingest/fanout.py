"""From an event to its deliveries, by the functions published to the database."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway import codec
from gateway.clock import SECOND
from gateway.core.match import Match, Matcher, compile_condition, listens
from gateway.core.spec import FunctionSpec, Manifest, current
from gateway.core.waits import on_expression, on_match
from gateway.errors import DeclarationError
from gateway.ids import new_id
from gateway.store.inbox import EventRecord, NewDelivery, Once, key_hash
from gateway.store.waits import Wait

PAUSED = 2


class Fanout:
    """What is offered right now, and what of it is paused since when. Replaced as a whole when either changes.

    `specs` are the current versions by id; `versions` are all, by what their runs are queued as.
    """

    def __init__(self, apps: Mapping[str, Manifest], pauses: Mapping[str, int] | None = None) -> None:
        self.apps = apps
        self.pauses = pauses or {}
        self.versions = {spec.queued_as: spec for manifest in apps.values() for spec in manifest.specs}
        self.specs = current(self.versions.values())
        self._matcher = Matcher(self.specs.values())

    def deliveries(self, event: EventRecord, body: bytes) -> tuple[NewDelivery, ...]:
        """One delivery for each function that matches; `body` holds the event's data, at its `data_path`."""
        matches = self._matcher.match(event.name, lambda: variables(event, body))
        return tuple([self._delivery(match, event, body) for match in matches])

    def _delivery(self, match: Match, event: EventRecord, body: bytes) -> NewDelivery:
        if match.skip_reason is not None:
            return NewDelivery(match.function_id, 0, None, match.skip_reason)
        made = self.run(match.function_id)
        spec = self.specs[match.function_id]
        return _declared(made, spec, event, variables(event, body)) if spec.idempotency or spec.cancel_on else made

    def run(self, function_id: str) -> NewDelivery:
        """A new run of the current version of a function."""
        spec = self.specs[function_id]
        held = PAUSED if function_id in self.pauses else 0
        queued_as = None if spec.version is None else spec.queued_as
        return NewDelivery(function_id, spec.attempts, new_id("run"), held=held, queued_as=queued_as)

    def listens(self, function_id: str, name: str) -> bool:
        """Whether a function listens to events of this name."""
        return listens(self.specs[function_id], name)

    def anyone_listens(self, name: str) -> bool:
        """Whether any function does."""
        return bool(self._matcher.match(name, lambda: {}))

    def chosen(self, function_ids: Sequence[str]) -> tuple[NewDelivery, ...]:
        """A run for each of these functions, whatever they listen to."""
        return tuple(self.run(function_id) for function_id in function_ids)


def _declared(made: NewDelivery, spec: FunctionSpec, event: EventRecord, known: dict[str, Any]) -> NewDelivery:
    """A delivery with its function's idempotency key, and with what cancels its run. What cannot be had from this event is
    left out: the run is what matters."""
    once, cancels = None, list[Wait]()
    with contextlib.suppress(Exception):
        value = compile_condition(spec.idempotency).execute({"event": known}) if spec.idempotency else None
        if value is not None:
            until = event.received_at + int(spec.idempotency_seconds * SECOND)
            once = Once(key_hash(f"function {spec.id}", codec.dumps(value).decode()), until)
    for cancel in spec.cancel_on:
        with contextlib.suppress(DeclarationError):
            condition = on_match(cancel.name, cancel.match, known) if cancel.match else on_expression(cancel.name, cancel.if_ or "", known)
            condition = msgspec.structs.replace(condition, exclude=(event.id,))
            until = None if cancel.timeout_seconds is None else event.received_at + int(cancel.timeout_seconds * SECOND)
            cancels.append(Wait("cancel", condition.hash, event.received_at, until, condition))
    return msgspec.structs.replace(made, once=once, cancels=tuple(cancels))


def variables(event: EventRecord, body: bytes) -> dict[str, Any]:
    """The CEL variable `event`."""
    return {
        "id": event.id,
        "name": event.name,
        "source": event.source,
        "attributes": codec.loads(event.attributes),
        "data": codec.loads_text(event.data if event.data is not None else codec.member(body, event.data_path)),
    }
