"""How much of what failed verification is kept: a byte budget and a rate for each source, so that it crowds out nothing."""

from __future__ import annotations

from gateway.clock import SECOND, Micros

WINDOW: Micros = 60 * SECOND


class Budget:
    """A source's allowance in this process: so many requests and bytes a minute."""

    def __init__(self, per_minute: int, bytes_per_minute: int) -> None:
        self._limits = (per_minute, bytes_per_minute)
        self._window: Micros = 0
        self._used = (0, 0)

    def take(self, size: int, now: Micros) -> bool:
        """Whether a request of `size` bytes may still be kept."""
        if now - self._window >= WINDOW:
            self._window, self._used = now, (0, 0)
        count, total = self._used[0] + 1, self._used[1] + size
        if count > self._limits[0] or total > self._limits[1]:
            return False
        self._used = (count, total)
        return True
