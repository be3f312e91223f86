"""Backoff between attempts: exponential, full jitter, capped; tenacity's strategy, asked for one number."""

from __future__ import annotations

from typing import Any

from tenacity import RetryCallState, Retrying, wait_random_exponential

FIRST_SECONDS = 2.0
CAP_SECONDS = 3600.0

_wait = wait_random_exponential(multiplier=FIRST_SECONDS, max=CAP_SECONDS)


def backoff_seconds(attempt: int) -> float:
    """Seconds to wait after attempt number `attempt` (from 1): anywhere up to 2, 4, 8, … at most 3600."""
    state = RetryCallState(Retrying(), None, (), dict[str, Any]())
    state.attempt_number = attempt
    return _wait(state)
