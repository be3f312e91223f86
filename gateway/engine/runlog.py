"""A run's own log lines: whatever its function says through `logging` while it runs, bounded, kept with the run."""

from __future__ import annotations

import logging
from contextvars import ContextVar

from gateway.clock import Clock
from gateway.store.runs import LogLine

MAX_LINES = 1000
MAX_CHARACTERS = 4000

# What a line is said in: it goes with tasks and threads, and no logger has to know of it.
current: ContextVar[RunLog | None] = ContextVar("tidegate_run_log", default=None)
step_key: ContextVar[str | None] = ContextVar("tidegate_step", default=None)


class RunLog:
    """The lines of one attempt, until somebody takes them."""

    def __init__(self, run_id: str, function_id: str, fence: int, attempt: int, clock: Clock) -> None:
        self.run_id = run_id
        self.function_id = function_id
        self.attempt = attempt
        self._fence = fence
        self._clock = clock
        self._said = 0
        self._lines: list[LogLine] = []

    def add(self, level: str, text: str) -> None:
        """Keep a line, unless there were MAX_LINES already; of a long one the beginning."""
        self._said += 1
        if self._said > MAX_LINES + 1:
            return
        if self._said == MAX_LINES + 1:
            level, text = "warning", f"this attempt has said {MAX_LINES} lines; what it says from here on is not kept"
        shown = text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()[:MAX_CHARACTERS]
        self._lines.append(LogLine(self.run_id, self._fence, self._said, self.attempt, self._clock(), level, shown, step_key.get()))

    def take(self) -> tuple[LogLine, ...]:
        """The lines since the last time."""
        taken, self._lines = self._lines, []
        return tuple(taken)


class Capture(logging.Handler):
    """Gives each record to the run in whose context it was made, if any."""

    def emit(self, record: logging.LogRecord) -> None:
        log = current.get()
        if log is None:
            return
        text = record.getMessage()
        if record.exc_info and record.exc_info[0] is not None:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        log.add(record.levelname.lower(), text)
