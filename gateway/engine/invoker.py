"""The one seam for running anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from gateway import codec
from gateway.core.outcome import Outcome
from gateway.core.steps import Operation, Step
from gateway.store.runs import Claimed

MAX_STEP_BYTES = 1 << 20
MAX_RUN_BYTES = 32 << 20


class Record(Protocol):
    """Commits what a step has come to."""

    async def __call__(self, operation: Operation, fresh: bool) -> Step | None:
        """The step as it is recorded then: what it waits for may have come already. None when the run has another holder.

        `fresh`: the run does not remember the step yet. Waits for as long as the store is away.
        """
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """One attempt to make: the run as claimed, with its event and steps, and where what it does is recorded.

    `say` keeps a line with the run, `show` its progress. Nothing in it knows of Python functions.
    """

    run: Claimed
    record: Record
    say: Callable[[str, str], None]
    show: Callable[[int, int | None, str], None]
    max_step_bytes: int = MAX_STEP_BYTES
    max_run_bytes: int = MAX_RUN_BYTES

    def variables(self) -> dict[str, Any]:
        """The run's event as expressions see it."""
        run = self.run
        return {
            "id": run.event_id,
            "name": run.event_name,
            "source": run.source,
            "attributes": codec.loads(run.attributes),
            "data": codec.loads_text(codec.member(run.body, run.data_path)),
        }


class Invoker(Protocol):
    """Executes an attempt. Local Python, an HTTP push or a remote SDK: the engine cannot tell them apart."""

    async def invoke(self, call: Call) -> Outcome:
        """What came of it. Never raises for a fault of the function; is cancelled when the worker must let go of the run."""
        ...
