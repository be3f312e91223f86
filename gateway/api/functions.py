"""`/functions`: what is offered; pause, resume, and invoke by hand."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, Response, get, post

from gateway.api import describe, present, schemas
from gateway.api.deps import Deps
from gateway.api.events import SOURCE
from gateway.core.spec import FunctionSpec
from gateway.errors import InvalidRequest, NotFound
from gateway.ids import new_id
from gateway.ingest.receive import traceparent
from gateway.store.admin import Pause, Resume
from gateway.store.inbox import Accept, EventRecord

BY_HAND = "tidegate/function.invoked"

Call = Request[Any, Any, Any]
InvokeFunction = describe.body(
    {"type": "object", "additionalProperties": False, "properties": {"data": {"description": "Any JSON; kept byte for byte."}}},
    {"data": {"id": 7}},
    required=False,
)


class Invocation(msgspec.Struct, forbid_unknown_fields=True):
    """The data to invoke a function with."""

    data: msgspec.Raw = msgspec.Raw(b"{}")


@get("/functions", tags=["functions"], responses=describe.answers(schemas.FunctionList))
async def list_functions(deps: Deps) -> Response[bytes]:
    """Every function that somebody offers, as this gateway knows them: what is listed here gets the next event."""
    fanout = deps.live.fanout
    found = [(app, spec) for app, manifest in fanout.apps.items() for spec in manifest.specs]
    return present.json(schemas.FunctionList([present.function(app, spec, fanout.pauses.get(spec.id)) for app, spec in found]))


@get("/functions/{function_id:str}", tags=["functions"], responses=describe.answers(schemas.Function, 404))
async def get_function(deps: Deps, function_id: str) -> Response[bytes]:
    """One function."""
    return _answer(deps, function_id)


@post(
    "/functions/{function_id:str}/pause",
    tags=["functions"],
    opt={"scope": "replay"},
    status_code=200,
    responses=describe.answers(schemas.Function, 404, 409, 422),
)
async def pause_function(deps: Deps, function_id: str) -> Response[bytes]:
    """Let the runs of a function wait, those to come included; attempts that are running go on to their end."""
    await deps.journal.commit(Pause(_names(deps, function_id), deps.clock()))
    await deps.refresh()
    return _answer(deps, function_id)


@post(
    "/functions/{function_id:str}/resume",
    tags=["functions"],
    opt={"scope": "replay"},
    status_code=200,
    responses=describe.answers(schemas.Function, 404, 409, 422),
)
async def resume_function(deps: Deps, function_id: str) -> Response[bytes]:
    """Let the runs of a paused function go on."""
    await deps.journal.commit(Resume(_names(deps, function_id)))
    await deps.refresh()
    return _answer(deps, function_id)


@post(
    "/functions/{function_id:str}/invoke",
    tags=["functions"],
    opt={"scope": "send"},
    status_code=200,
    operation_class=InvokeFunction,
    responses=describe.answers(schemas.Sent, 404, 409, 413, 422),
)
async def invoke_function(deps: Deps, request: Call, function_id: str) -> Response[bytes]:
    """Run one function, and no other, on an event with the first name in `on` that is no wildcard, or `tidegate/function.invoked`."""
    _, spec = _find(deps, function_id)
    data = _data(await request.body())
    id_, now = new_id("evt"), deps.clock()
    event = EventRecord(
        id=id_,
        name=next((name for name in spec.on if "*" not in name), BY_HAND),
        source=SOURCE,
        key=id_,
        occurred_at=now,
        received_at=now,
        attributes=b"{}",
        data=data,
        traceparent=traceparent(request.headers.get("traceparent")),
    )
    accepted = await deps.journal.commit(Accept(event, deps.live.fanout.chosen([function_id])))
    return present.json(schemas.Sent(accepted.event_id, accepted.duplicate))


def _data(body: bytes) -> bytes:
    if not body.strip():
        return b"{}"
    try:
        return bytes(msgspec.json.decode(body, type=Invocation).data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f'The body is {{"data": …}} or empty: {error}') from None


def _find(deps: Deps, function_id: str) -> tuple[str, FunctionSpec]:
    """The current version of a function, and its app. Raises NotFound."""
    spec = deps.live.fanout.specs.get(function_id)
    for app, manifest in deps.live.fanout.apps.items():
        if spec is not None and spec in manifest.specs:
            return app, spec
    raise NotFound(f"There is no function {function_id!r}.")


def _names(deps: Deps, function_id: str) -> tuple[str, ...]:
    """What runs of a function may be queued as. Raises NotFound."""
    _find(deps, function_id)
    versions = (queued_as for queued_as, spec in deps.live.fanout.versions.items() if spec.id == function_id)
    return tuple({function_id: None, **dict.fromkeys(versions)})


def _answer(deps: Deps, function_id: str) -> Response[bytes]:
    app, spec = _find(deps, function_id)
    return present.json(present.function(app, spec, deps.live.fanout.pauses.get(function_id)))
