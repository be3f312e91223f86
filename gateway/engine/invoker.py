"""The one seam for running anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gateway.core.outcome import Outcome
from gateway.store.runs import Claimed


@dataclass(frozen=True, slots=True)
class Call:
    """One attempt to make: the run as claimed, with its event; nothing in it knows of Python functions."""

    run: Claimed


class Invoker(Protocol):
    """Executes an attempt. Local Python, an HTTP push or a remote SDK: the engine cannot tell them apart."""

    async def invoke(self, call: Call) -> Outcome:
        """What came of it. Never raises for a fault of the function; is cancelled when the worker must let go of the run."""
        ...
