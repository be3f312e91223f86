"""`/events`: read, send, deliveries, replay."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any, Literal, cast

import msgspec
from litestar import Request, Response, get, post

from gateway import codec
from gateway.api import describe, present, schemas
from gateway.api.deps import Deps, authorise, may
from gateway.api.filters import Cursor, Limit, Many, Query, Since, Until, between, filters, instant, several
from gateway.api.patterns import EVENT_ID
from gateway.api.runs import attempts_of
from gateway.core.names import MAX_NAME, SENDABLE, refusal
from gateway.errors import Conflict, InvalidRequest, NotFound
from gateway.ids import new_id
from gateway.ingest.receive import traceparent
from gateway.store.admin import Replay
from gateway.store.inbox import Accept, Accepted, AcceptMany, EventRecord

MAX_BATCH = 5000
SOURCE = "api"

_ID = re.compile(EVENT_ID.removesuffix("$"))

# Where msgspec says it is: `$[3].name`.
_PLACE = re.compile(r" - at `\$([\[.].*)`$")

Call = Request[Any, Any, Any]


class NewEvent(msgspec.Struct, forbid_unknown_fields=True):
    """An event to send; `id` is its idempotency key."""

    name: str
    data: msgspec.Raw = msgspec.Raw(b"{}")
    id: str | None = None
    occurred_at: str | None = None


_one = msgspec.json.Decoder(NewEvent)
_many = msgspec.json.Decoder(list[NewEvent])

_NEW_EVENT: dict[str, Any] = {
    "type": "object",
    "title": "NewEvent",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {
        "name": {
            "type": "string",
            "pattern": SENDABLE,
            "maxLength": MAX_NAME,
            "examples": ["user/created"],
            "description": "Not one that begins with `tidegate/`: those Tidegate sends itself.",
        },
        "data": {"description": "Any JSON; kept byte for byte."},
        "id": {"type": ["string", "null"], "pattern": EVENT_ID, "description": "Sent again, it is the same event."},
        "occurred_at": {"type": ["string", "null"], "format": "date-time"},
    },
}
_EXAMPLE = {"name": "user/created", "data": {"id": 7}}
SendEvents = describe.body({"oneOf": [_NEW_EVENT, {"type": "array", "minItems": 1, "maxItems": MAX_BATCH, "items": _NEW_EVENT}]}, _EXAMPLE)
ReplayEvent = describe.body(
    {"type": "object", "additionalProperties": False, "properties": {"functions": {"type": "array", "items": {"type": "string"}}}},
    {"functions": ["fulfil-order"]},
    required=False,
)


def _query(limit: int, cursor: str | None, given: dict[str, Any]) -> Query:
    names = [*cast(list[str], given["name"] or []), *cast(list[str], given["event"] or [])]
    columns = {"e.name": names, "e.source": given["source"], "e.key": given["key"]}
    return between(filters(limit, cursor, columns), "e.id", "evt", given["since"], given["until"])


@get("/events", tags=["events"], responses=describe.answers(schemas.EventPage, example=None))
async def list_events(
    deps: Deps,
    request: Call,
    limit: Limit = 50,
    cursor: Cursor = None,
    name: Many = None,
    event: Many = None,
    source: Many = None,
    key: Many = None,
    since: Since = None,
    until: Until = None,
    include: Annotated[list[Literal["payload"]] | None, several("Show the data too.", "payload")] = None,
) -> Response[bytes]:
    """Events, newest first. `include=payload` shows their data too."""
    given = {"name": name, "event": event, "source": source, "key": key, "since": since, "until": until}
    query, with_payload = _query(limit, cursor, given), bool(include)
    if with_payload:
        authorise(request, "payload:read")
    found = await asyncio.to_thread(deps.reads.events, query)
    shown_ids = [row["id"] for row in found.rows] if with_payload else []
    data = await asyncio.to_thread(deps.reads.event_data, shown_ids)

    def shown(row: present.Record) -> schemas.Event:
        event = present.event(row)
        if with_payload:
            event.data = _payload(data.get(row["id"]))
        return event

    return present.page(found, schemas.EventPage, shown)


@get("/events/count", tags=["events"], responses=describe.answers(schemas.Count))
async def count_events(
    deps: Deps,
    name: Many = None,
    event: Many = None,
    source: Many = None,
    key: Many = None,
    since: Since = None,
    until: Until = None,
) -> Response[bytes]:
    """How many events there are, up to 10,000."""
    query = _query(1, None, {"name": name, "event": event, "source": source, "key": key, "since": since, "until": until})
    count, capped = await asyncio.to_thread(deps.reads.count, "events", query)
    return present.json(schemas.Count(count, capped))


@get("/events/{event_id:str}", tags=["events"], responses=describe.answers(schemas.Event, 404))
async def get_event(deps: Deps, request: Call, event_id: str) -> Response[bytes]:
    """One event; for a key with `payload:read` with its data, byte for byte as it arrived."""
    event = present.event(await asyncio.to_thread(deps.reads.event, event_id))
    if may(request, "payload:read"):
        event.data = _payload((await asyncio.to_thread(deps.reads.event_data, [event_id])).get(event_id))
    return present.json(event)


@get("/events/{event_id:str}/deliveries", tags=["events"], responses=describe.answers(schemas.DeliveryList, 404))
async def list_event_deliveries(deps: Deps, event_id: str) -> Response[bytes]:
    """What became of an event, for each function that it matched, with every ended attempt."""
    await asyncio.to_thread(deps.reads.event, event_id)
    rows = await asyncio.to_thread(deps.reads.deliveries, event_id)
    attempts = await attempts_of(deps, [row["run_id"] for row in rows if row["run_id"] is not None])
    shown = [msgspec.structs.replace(present.delivery(row), attempt_list=attempts.get(row["run_id"], [])) for row in rows]
    return present.json(schemas.DeliveryList(shown))


@post(
    "/events",
    tags=["events"],
    opt={"scope": "send"},
    status_code=200,
    operation_class=SendEvents,
    responses=describe.answers(schemas.Sent | schemas.SentMany, 409, 413, 422, text="In the order they were sent."),
)
async def send_events(deps: Deps, request: Call) -> Response[bytes]:
    """Send one event, or an array of up to 5,000, all or nothing. Names that begin with `tidegate/` are Tidegate's own."""
    body = await request.body()
    many = body.lstrip()[:1] == b"["
    events, now, trace = _decode(body, many), deps.clock(), traceparent(request.headers.get("traceparent"))
    accepts = tuple(_accept(deps, event, f"/{index}" if many else "", now, trace) for index, event in enumerate(events))
    if not many:
        return present.json(_accepted(await deps.journal.commit(accepts[0])))
    results = await deps.journal.commit(AcceptMany(accepts))
    return present.json(schemas.SentMany([_accepted(result) for result in results]))


@post(
    "/events/{event_id:str}/replay",
    tags=["events"],
    opt={"scope": "replay"},
    status_code=200,
    operation_class=ReplayEvent,
    responses=describe.answers(schemas.Replayed, 404, 409, 413, 422),
)
async def replay_event(deps: Deps, event_id: str, request: Call) -> Response[bytes]:
    """New runs of a stored event: of the functions that match it now, or of those named in `functions`."""
    row = await asyncio.to_thread(deps.reads.event, event_id)
    chosen = _functions(await request.body())
    data = (await asyncio.to_thread(deps.reads.event_data, [event_id])).get(event_id, b"null") if chosen is None else b""
    fanout = deps.live.fanout
    if chosen is None:
        deliveries = fanout.deliveries(_record(row), data)
    else:
        unknown = [id_ for id_ in chosen if id_ not in fanout.specs]
        if unknown:
            raise NotFound(f"There is no function {unknown[0]!r}.")
        deaf = [id_ for id_ in chosen if not fanout.listens(id_, row["name"])]
        if deaf:
            raise Conflict(f"The function {deaf[0]!r} does not listen to {row['name']}.")
        deliveries = fanout.chosen(list(dict.fromkeys(chosen)))
    replay_id = new_id("rpl")
    if not await deps.journal.commit(Replay(event_id, replay_id, deliveries, deps.clock())):
        raise NotFound(f"There is no event with the id {event_id!r} any more.")
    return present.json(schemas.Replayed(replay_id, [d.run_id for d in deliveries if d.run_id]))


def _payload(data: bytes | None) -> Any:
    return present.stored(data) if data is not None and codec.is_json(data) else None


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
        message, where = f"This is not an event, nor an array of them: {error}", _PLACE.search(str(error))
        raise InvalidRequest(message, code="invalid_event", pointer=where and re.sub(r"[\[\].]+", "/", where[1]).rstrip("/")) from None
    if not 1 <= len(events) <= MAX_BATCH:
        raise InvalidRequest(f"An array holds 1 to {MAX_BATCH} events, not {len(events)}.", code="invalid_event")
    return events


def _exact(body: bytes, many: bool) -> list[NewEvent]:
    """The events with the exact bytes of their data; what only the lenient parser reads (lone surrogates) is written anew."""
    body.decode()  # of the data msgspec does not look at every byte
    try:
        return _many.decode(body) if many else [_one.decode(body)]
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        if not codec.is_strict(body):
            raise
        values = codec.loads(body)
        again = cast(list[Any], values if isinstance(values, list) else [values])
        raws = [codec.dumps(value.pop("data", {})) if isinstance(value, dict) else b"" for value in again]  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        events = msgspec.convert(again, list[NewEvent])
        return [msgspec.structs.replace(event, data=msgspec.Raw(raw)) for event, raw in zip(events, raws, strict=True)]


def _accept(deps: Deps, new: NewEvent, pointer: str, now: int, trace: str | None) -> Accept:
    reason = refusal(new.name)
    if reason is not None:
        raise InvalidRequest(reason, code="invalid_event", pointer=f"{pointer}/name")
    if new.id is not None and not (_ID.fullmatch(new.id) and codec.is_unicode(new.id)):
        raise InvalidRequest("An event's `id` has 1 to 255 printable characters.", code="invalid_event", pointer=f"{pointer}/id")
    try:
        occurred_at = now if new.occurred_at is None else instant(new.occurred_at, "occurred_at")
    except InvalidRequest as error:
        raise InvalidRequest(str(error), code="invalid_event", pointer=f"{pointer}/occurred_at") from None
    id_ = new_id("evt")
    event = EventRecord(
        id=id_,
        name=new.name,
        source=SOURCE,
        key=new.id if new.id is not None else id_,
        occurred_at=occurred_at,
        received_at=now,
        attributes=b"{}",
        data=bytes(new.data),
        traceparent=trace,
    )
    return Accept(event, deps.live.fanout.deliveries(event, b""))


def _accepted(result: Accepted) -> schemas.Sent:
    return schemas.Sent(result.event_id, result.duplicate)
