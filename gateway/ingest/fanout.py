"""From an event to its deliveries, by the functions published to the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway import codec
from gateway.core.match import Match, Matcher
from gateway.core.spec import Manifest
from gateway.ids import new_id
from gateway.store.inbox import EventRecord, NewDelivery


class Fanout:
    """What is offered right now. Replaced as a whole when somebody publishes."""

    def __init__(self, apps: Mapping[str, Manifest]) -> None:
        self.apps = apps
        self.specs = {spec.id: spec for manifest in apps.values() for spec in manifest.specs}
        self._matcher = Matcher(self.specs.values())

    def deliveries(self, event: EventRecord, body: bytes) -> tuple[NewDelivery, ...]:
        """One delivery for each function that matches; `body` holds the event's data, at its `data_path`."""
        matches = self._matcher.match(event.name, lambda: variables(event, body))
        return tuple([self._delivery(match) for match in matches])

    def _delivery(self, match: Match) -> NewDelivery:
        run_id = new_id("run") if match.skip_reason is None else None
        return NewDelivery(match.function_id, self.specs[match.function_id].attempts, run_id, match.skip_reason)

    def chosen(self, function_ids: Sequence[str]) -> tuple[NewDelivery, ...]:
        """A run for each of these functions, whatever they listen to."""
        return tuple(NewDelivery(id_, self.specs[id_].attempts, new_id("run")) for id_ in function_ids)


def variables(event: EventRecord, body: bytes) -> dict[str, Any]:
    """The CEL variable `event`."""
    return {
        "id": event.id,
        "name": event.name,
        "source": event.source,
        "attributes": codec.loads(event.attributes),
        "data": codec.loads_text(event.data if event.data is not None else codec.member(body, event.data_path)),
    }
