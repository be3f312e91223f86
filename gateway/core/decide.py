"""What follows from an attempt's outcome. Pure: the same arguments always give the same decision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from gateway.clock import SECOND, Micros
from gateway.core.outcome import Cancelled, Completed, Failed, Failure, HandedBack, Outcome, Suspended

Move = Literal["succeed", "fail", "retry", "hand_back", "park", "cancel"]


@dataclass(frozen=True, slots=True)
class Decision:
    """The move to commit: `due_at` of a run that goes on later, `reason` of one that is parked, `output` of a success, `error`
    of a failure or a cancellation."""

    move: Move
    due_at: Micros | None = None
    output: bytes | None = None
    error: Failure | None = None
    reason: str | None = None


def decide(outcome: Outcome, *, attempt: int, attempts: int, now: Micros, backoff_seconds: Callable[[int], float]) -> Decision:
    """The next move of a run whose attempt number `attempt` (from 1) of `attempts` ended with `outcome`."""
    match outcome:
        case Completed(output=output):
            return Decision("succeed", output=output)
        case HandedBack():
            return Decision("hand_back", due_at=now)
        case Suspended(due_at=due_at, reason=reason):
            return Decision("park", due_at=due_at, reason=reason)
        case Cancelled(error):
            return Decision("cancel", error=error)
        case Failed(error=error, retriable=retriable, retry_at=retry_at):
            if not retriable or attempt >= attempts:
                return Decision("fail", error=error)
            due = retry_at if retry_at is not None else now + int(backoff_seconds(attempt) * SECOND)
            return Decision("retry", due_at=max(due, now), error=error)
