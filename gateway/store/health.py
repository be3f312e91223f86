"""Whether the store does its work, as the writer sees it: said once, and not a thousand times."""

from __future__ import annotations

import time
from collections.abc import Sequence

from gateway.errors import Unavailable
from gateway.telemetry import Telemetry

PROBE_SECONDS = 0.5


class Health:
    """The trouble a store is in, if any. While it lasts, callers are refused at once, but for one now and then."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._since = 0.0
        self._probe_at = 0.0
        self.trouble: Unavailable | None = None

    def note(self, outcomes: Sequence[tuple[object, Exception | None]]) -> None:
        """A transaction was tried, with these outcomes."""
        error = next((error for _, error in outcomes if isinstance(error, Unavailable)), None)
        if error is not None:
            self.failed(error)
        elif any(error is None for _, error in outcomes):
            self.worked()

    def failed(self, error: Unavailable) -> None:
        """A transaction failed with this."""
        if error.state in ("conflict", "overloaded"):
            return
        if self.trouble is None:
            self._since = time.monotonic()
        if self.trouble is None or self.trouble.state != error.state:
            self._telemetry.emit("store.away", state=error.state, error=str(error), remedy=error.remedy)
        self.trouble = error
        self._probe_at = time.monotonic() + PROBE_SECONDS

    def worked(self) -> None:
        """A transaction was committed. Under another schema that is luck: it stays trouble."""
        if self.trouble is not None and self.trouble.state != "other_schema":
            seconds = round(time.monotonic() - self._since, 1)
            self._telemetry.emit("store.back", state=self.trouble.state, seconds=seconds)
            self.trouble = None

    def admit(self) -> None:
        """Raises Unavailable when a command is not even to be tried: in trouble, but for one every PROBE_SECONDS."""
        if self.trouble is None:
            return
        now = time.monotonic()
        if now < self._probe_at:
            # No local names it: by its traceback it would hold itself, and with it the callers' bodies until the collector comes.
            raise Unavailable(str(self.trouble), state=self.trouble.state)
        self._probe_at = now + PROBE_SECONDS
