"""Facts about what happens: `emit(name, **facts)`. Wording and levels belong to who listens (gateway/observe)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Listener = Callable[[str, dict[str, Any]], None]


class Telemetry:
    """A list of listeners; a fact goes to each of them, in order."""

    def __init__(self, *listeners: Listener) -> None:
        self.listeners = list(listeners)

    def emit(self, name: str, /, **facts: Any) -> None:
        """Tell the listeners that something happened."""
        for listener in self.listeners:
            listener(name, facts)
