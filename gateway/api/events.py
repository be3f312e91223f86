"""`/events`: read, send, deliveries, replay."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime
from typing import Annotated, Any, cast

import msgspec
from litestar import Request, Response, get, post

from gateway import codec
from gateway.api import present
from gateway.api.deps import Deps
from gateway.api.filters import Cursor, Limit, Many, filters
from gateway.clock import from_datetime
from gateway.errors import InvalidRequest
from gateway.ids import new_id
from gateway.store.admin import Replay
from gateway.store.inbox import Accept, Accepted, AcceptMany, EventRecord

MAX_BATCH = 5000
SOURCE = "api"

_NAME = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.:-]+)+")


class NewEvent(msgspec.Struct, forbid_unknown_fields=True):
    """An event to send; `id` is its idempotency key."""

    name: str
    data: msgspec.Raw = msgspec.Raw(b"{}")
    id: str | None = None
    occurred_at: datetime | None = None


_one = msgspec.json.Decoder(NewEvent)
_many = msgspec.json.Decoder(list[NewEvent])


@get("/events")
async def list_events(
    deps: Deps, limit: Limit = 50, cursor: Cursor = None, name: Many = None, event: Many = None, source: Many = None
) -> Response[bytes]:
    """Events, newest first."""
    query = filters(limit, cursor, {"e.name": [*(name or []), *(event or [])], "e.source": source})
    return present.page(await asyncio.to_thread(deps.reads.events, query), present.event)


@get("/events/count")
async def count_events(deps: Deps, name: Many = None, event: Many = None, source: Many = None) -> Response[bytes]:
    """How many events there are, up to 10,000."""
    query = filters(1, None, {"e.name": [*(name or []), *(event or [])], "e.source": source})
    count, capped = await asyncio.to_thread(deps.reads.count, "events", query)
    return present.json({"count": count, "capped": capped})


@get("/events/{event_id:str}")
async def get_event(deps: Deps, event_id: str) -> Response[bytes]:
    """One event with its data, byte for byte as it arrived."""
    row = await asyncio.to_thread(deps.reads.event, event_id)
    try:
        data = await asyncio.to_thread(deps.reads.event_data, event_id)
    except ValueError:
        data = None
    shown = present.stored(data) if data is not None and codec.is_json(data) else None
    return present.json({**present.event(row), "data": shown})


@get("/events/{event_id:str}/deliveries")
async def list_deliveries(deps: Deps, event_id: str) -> Response[bytes]:
    """What became of an event, for each function that it matched."""
    await asyncio.to_thread(deps.reads.event, event_id)
    rows = await asyncio.to_thread(deps.reads.deliveries, event_id)
    return present.json({"data": [present.delivery(event_id, row) for row in rows]})


@post("/events", opt={"scope": "send"}, status_code=200)
async def send_events(deps: Deps, request: Request[Any, Any, Any]) -> Response[bytes]:
    """Send one event, or an array of up to 5,000, all or nothing."""
    body = await request.body()
    many = body.lstrip()[:1] == b"["
    events = _decode(body, many)
    now = deps.clock()
    accepts = tuple(_accept(deps, event, index, now) for index, event in enumerate(events))
    if not many:
        return present.json(_accepted(await deps.journal.commit(accepts[0])))
    results = await deps.journal.commit(AcceptMany(accepts))
    return present.json({"data": [_accepted(result) for result in results]})


@post("/events/{event_id:str}/replay", opt={"scope": "replay"}, status_code=200)
async def replay_event(deps: Deps, event_id: str, request: Request[Any, Any, Any]) -> Response[bytes]:
    """New runs of a stored event: of the functions that match it now, or of those named in `functions`."""
    row = await asyncio.to_thread(deps.reads.event, event_id)
    chosen = _functions(await request.body())
    fanout = deps.live.fanout
    if chosen is None:
        record = _record(row)
        data = await asyncio.to_thread(deps.reads.event_data, event_id)
        deliveries = fanout.deliveries(record, data)
    else:
        unknown = [id_ for id_ in chosen if id_ not in fanout.specs]
        if unknown:
            raise InvalidRequest(f"There is no function {unknown[0]!r}.", pointer="/functions")
        deliveries = fanout.chosen(list(dict.fromkeys(chosen)))
    replay_id = new_id("rpl")
    await deps.journal.commit(Replay(event_id, replay_id, deliveries, deps.clock()))
    return present.json({"replay_id": replay_id, "runs": [d.run_id for d in deliveries if d.run_id]})


def _record(row: present.Record) -> EventRecord:
    return EventRecord(
        id=row["id"],
        name=row["name"],
        source=row["source"],
        key=row["key"],
        occurred_at=row["occurred_at"],
        received_at=row["received_at"],
        attributes=bytes(row["attributes"]),
    )


def _functions(body: bytes) -> list[str] | None:
    if not body.strip():
        return None
    try:
        return msgspec.json.decode(body, type=dict[Annotated[str, msgspec.Meta(pattern="^functions$")], list[str]]).get("functions")
    except msgspec.DecodeError as error:
        raise InvalidRequest(f'The body is {{"functions": ["id", …]}} or empty: {error}') from None


def _decode(body: bytes, many: bool) -> list[NewEvent]:
    try:
        events = _exact(body, many)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"This is not an event, nor an array of them: {error}", code="invalid_event") from None
    if not 1 <= len(events) <= MAX_BATCH:
        raise InvalidRequest(f"An array holds 1 to {MAX_BATCH} events, not {len(events)}.", code="invalid_event")
    return events


def _exact(body: bytes, many: bool) -> list[NewEvent]:
    """The events with the exact bytes of their data; what only the lenient parser reads (lone surrogates) is written anew."""
    try:
        return _many.decode(body) if many else [_one.decode(body)]
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        values = codec.loads(body)
        again = cast(list[Any], values if isinstance(values, list) else [values])
        raws = [codec.dumps(value.pop("data", {})) if isinstance(value, dict) else b"" for value in again]  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        events = msgspec.convert(again, list[NewEvent])
        return [msgspec.structs.replace(event, data=msgspec.Raw(raw)) for event, raw in zip(events, raws, strict=True)]


def _accept(deps: Deps, new: NewEvent, index: int, now: int) -> Accept:
    pointer = f"/{index}"
    if not _NAME.fullmatch(new.name) or len(new.name) > 200:
        message = f"Event name {new.name!r}: use letters, digits, `_.-` and a `/`, as in `user/created`."
        raise InvalidRequest(message, code="invalid_event", pointer=f"{pointer}/name")
    if new.id is not None and (not 0 < len(new.id) <= 255 or not new.id.isprintable()):
        raise InvalidRequest("An event's `id` has 1 to 255 printable characters.", code="invalid_event", pointer=f"{pointer}/id")
    if new.occurred_at is not None and new.occurred_at.tzinfo is None:
        message = "`occurred_at` needs a time zone, as in 2026-11-24T08:00:00Z."
        raise InvalidRequest(message, code="invalid_event", pointer=f"{pointer}/occurred_at")
    id_ = new_id("evt")
    event = EventRecord(
        id=id_,
        name=new.name,
        source=SOURCE,
        key=new.id if new.id is not None else id_,
        occurred_at=from_datetime(new.occurred_at) if new.occurred_at else now,
        received_at=now,
        attributes=b"{}",
        data=bytes(new.data),
    )
    return Accept(event, deps.live.fanout.deliveries(event, b""))


def _accepted(result: Accepted) -> dict[str, Any]:
    return {"id": result.event_id, "duplicate": result.duplicate}
