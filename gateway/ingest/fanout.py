"""From an event to its deliveries, by the functions published to the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway import codec
from gateway.core.match import Match, Matcher, listens
from gateway.core.spec import Manifest
from gateway.ids import new_id
from gateway.store.inbox import EventRecord, NewDelivery

PAUSED = 2


class Fanout:
    """What is offered right now, and what of it is paused since when. Replaced as a whole when either changes."""

    def __init__(self, apps: Mapping[str, Manifest], pauses: Mapping[str, int] | None = None) -> None:
        self.apps = apps
        self.pauses = pauses or {}
        self.specs = {spec.id: spec for manifest in apps.values() for spec in manifest.specs}
        self._matcher = Matcher(self.specs.values())

    def deliveries(self, event: EventRecord, body: bytes) -> tuple[NewDelivery, ...]:
        """One delivery for each function that matches; `body` holds the event's data, at its `data_path`."""
        matches = self._matcher.match(event.name, lambda: variables(event, body))
        return tuple([self._delivery(match) for match in matches])

    def _delivery(self, match: Match) -> NewDelivery:
        if match.skip_reason is not None:
            return NewDelivery(match.function_id, 0, None, match.skip_reason)
        return self._run(match.function_id)

    def _run(self, function_id: str) -> NewDelivery:
        held = PAUSED if function_id in self.pauses else 0
        return NewDelivery(function_id, self.specs[function_id].attempts, new_id("run"), held=held)

    def listens(self, function_id: str, name: str) -> bool:
        """Whether a function listens to events of this name."""
        return listens(self.specs[function_id], name)

    def chosen(self, function_ids: Sequence[str]) -> tuple[NewDelivery, ...]:
        """A run for each of these functions, whatever they listen to."""
        return tuple(self._run(function_id) for function_id in function_ids)


def variables(event: EventRecord, body: bytes) -> dict[str, Any]:
    """The CEL variable `event`."""
    return {
        "id": event.id,
        "name": event.name,
        "source": event.source,
        "attributes": codec.loads(event.attributes),
        "data": codec.loads_text(event.data if event.data is not None else codec.member(body, event.data_path)),
    }
