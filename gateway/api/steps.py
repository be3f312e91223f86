"""`/runs/{id}/steps`, `/signals`: what a run remembers, and what it can be told."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get, post
from litestar.params import Parameter

from gateway.api import describe, present, schemas
from gateway.api.deps import Deps, may
from gateway.core.names import MAX_SIGNAL
from gateway.core.waits import signal_hash
from gateway.errors import InvalidRequest
from gateway.store.waits import SendSignal

Call = Request[Any, Any, Any]
Signal = Annotated[str, Parameter(description="What `step.wait_for_signal` was given.", max_length=MAX_SIGNAL)]
SignalBody = describe.body(
    {"type": "object", "additionalProperties": False, "properties": {"data": {"description": "Any JSON; kept byte for byte."}}},
    {"data": {"approved": True}},
    required=False,
)


class SignalData(msgspec.Struct, forbid_unknown_fields=True):
    """What to tell whoever waits."""

    data: msgspec.Raw = msgspec.Raw(b"null")


@get("/runs/{run_id:str}/steps", tags=["runs"], responses=describe.answers(schemas.StepList, 404))
async def list_run_steps(deps: Deps, request: Call, run_id: str) -> Response[bytes]:
    """What a run remembers of its steps, in the order they began, each with its failed tries.

    `output` is shown to keys with `payload:read`.
    """
    await asyncio.to_thread(deps.reads.run, run_id)
    rows = await asyncio.to_thread(deps.reads.steps, run_id)
    tries = await asyncio.to_thread(deps.reads.step_attempts, run_id)
    now, payload = deps.clock(), may(request, "payload:read")
    return present.json(schemas.StepList([present.step(row, tries.get(row["key"], []), now, payload=payload) for row in rows]))


@post(
    "/signals/{signal:str}",
    tags=["runs"],
    opt={"scope": "send"},
    status_code=200,
    operation_class=SignalBody,
    responses=describe.answers(schemas.Signalled, 409, 413, 422),
)
async def send_signal(deps: Deps, request: Call, signal: Signal) -> Response[bytes]:
    """Tell every run that waits for a signal; one that begins to wait later is not told."""
    if "\0" in signal:
        raise InvalidRequest("A signal's name has no NUL.")
    command = SendSignal(signal_hash(signal), _data(await request.body()), deps.clock())
    return present.json(schemas.Signalled(await deps.journal.commit(command)))


def _data(body: bytes) -> bytes:
    if not body.strip():
        return b"null"
    try:
        return bytes(msgspec.json.decode(body, type=SignalData).data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f'The body is {{"data": …}} or empty: {error}') from None
