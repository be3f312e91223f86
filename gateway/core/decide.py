"""What follows from an attempt's outcome. Pure: the same arguments always give the same decision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from gateway.clock import SECOND, Micros
from gateway.core.outcome import Completed, Failed, Failure, HandedBack, Outcome

Move = Literal["succeed", "fail", "retry", "hand_back"]


@dataclass(frozen=True, slots=True)
class Decision:
    """The move to commit: `due_at` for a retry, `output` for a success, `error` for a failure."""

    move: Move
    due_at: Micros | None = None
    output: bytes | None = None
    error: Failure | None = None


def decide(outcome: Outcome, *, attempt: int, attempts: int, now: Micros, backoff_seconds: Callable[[int], float]) -> Decision:
    """The next move of a run whose attempt number `attempt` (from 1) of `attempts` ended with `outcome`."""
    match outcome:
        case Completed(output):
            return Decision("succeed", output=output)
        case HandedBack():
            return Decision("hand_back", due_at=now)
        case Failed(error, retriable, retry_at):
            if not retriable or attempt >= attempts:
                return Decision("fail", error=error)
            due = retry_at if retry_at is not None else now + int(backoff_seconds(attempt) * SECOND)
            return Decision("retry", due_at=max(due, now), error=error)
