"""The life of a run, as a table. The database's CHECK constraints and the diagram in docs/concepts.md follow it."""

from __future__ import annotations

from typing import Literal

Status = Literal["queued", "running", "waiting", "succeeded", "failed", "cancelled"]
FINAL: frozenset[Status] = frozenset({"succeeded", "failed", "cancelled"})

# Why a run that nobody holds is not simply queued: the reasons in its queue row.
WAITING = ("retry", "sleep", "event", "signal", "invoke")

# state -> what happens -> next state
TRANSITIONS: dict[Status, dict[str, Status]] = {
    "queued": {"claim": "running", "cancel": "cancelled"},
    "running": {
        "succeed": "succeeded",
        "fail": "failed",
        "retry": "waiting",
        "park": "waiting",
        "hand_back": "queued",
        "lose_lease": "queued",
        "cancel": "cancelled",
    },
    "waiting": {"claim": "running", "wake": "queued", "cancel": "cancelled"},
    "succeeded": {},
    "failed": {"retry": "queued"},
    "cancelled": {"retry": "queued"},
}


def live_status(worker_id: str | None, reason: str | None) -> Status:
    """The status of a run that has a queue row: held by a worker, parked for a reason, or free."""
    if worker_id is not None:
        return "running"
    return "waiting" if reason in WAITING else "queued"


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> queued: accept"]
    for state, moves in TRANSITIONS.items():
        lines += [f"    {state} --> {target}: {what}" for what, target in moves.items()]
    return "\n".join([*lines, *(f"    {state} --> [*]" for state in TRANSITIONS if state in FINAL)])
