"""The API's resources as values: what a client gets, member by member. `present` fills them, OpenAPI describes them.

Times are RFC 3339 in UTC with milliseconds; `…_ms` are milliseconds, `…_bytes` bytes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from gateway.api.patterns import CURSOR, SECRET_TEXT, SOURCE_NAME, WORD
from gateway.errors import StoreState

Time = Annotated[str, Meta(examples=["2026-11-24T08:00:00.123Z"], extra_json_schema={"format": "date-time"})]
When = Annotated[
    str,
    Meta(
        description="RFC 3339, with a time zone.",
        examples=["2026-11-24T08:00:00Z"],
        extra_json_schema={"format": "date-time"},
    ),
]
Word = Annotated[str, Meta(pattern=WORD, max_length=500)]
SourceName = Annotated[str, Meta(pattern=SOURCE_NAME, description="Its URL ends in it.", examples=["shop"])]
SecretText = Annotated[str, Meta(pattern=SECRET_TEXT)]
MAX_SECRETS = 20
RunStatus = Literal["queued", "running", "waiting", "succeeded", "failed", "cancelled"]
DeliveryStatus = Literal["queued", "running", "waiting", "succeeded", "failed", "cancelled", "skipped"]
RequestStatus = Literal["accepted", "duplicate", "quarantined"]
Scope = Literal["read", "payload:read", "send", "replay", "admin"]


class Failure(msgspec.Struct):
    """Why an attempt or a run failed."""

    type: Annotated[str, Meta(description="The error's class.", examples=["TimeoutError"])]
    message: str
    traceback: str


class Event(msgspec.Struct):
    """One fact that arrived. `data` comes with `include=payload`, and from `/events/{id}`, for keys with `payload:read`."""

    id: Annotated[str, Meta(examples=["evt_01JD3ZC4Q8W6YH2M5T7V9XKBNR"])]
    name: Annotated[str, Meta(examples=["stripe/invoice.paid"])]
    source: Annotated[str, Meta(examples=["stripe"])]
    key: Annotated[str, Meta(description="What makes it the same event when it comes again, within its source.")]
    occurred_at: Time
    received_at: Time
    request_id: Annotated[str | None, Meta(description="The inbound request it came with; null for events sent by the API.")]
    attributes: Annotated[Any, Meta(description="What the provider keeps beside the data, such as Stripe's `livemode`.")]
    traceparent: str | None
    data: Annotated[Any, Meta(description="Byte for byte as it arrived; as a text where that is no JSON, such as NaN.")] = msgspec.UNSET


class Attempt(msgspec.Struct):
    """One ended try at a run."""

    run_id: str
    number: Annotated[int, Meta(description="Counts from 1; starts again when a run is retried by hand.")]
    outcome: Literal["succeeded", "failed", "handed_back", "lease_lost", "cancelled"]
    worker_id: str
    started_at: Time
    finished_at: Time
    duration_ms: int
    error: Failure | None


_REASONS = (
    "Why it is not running: `retry`, `sleep`, `event`, `signal`, `invoke` (what its next step waits for), `lease_lost`, `paused`,"
    " `no_worker_offers_it`."
)


class StepAttempt(msgspec.Struct):
    """A try at a step that failed."""

    number: int
    started_at: Time
    finished_at: Time
    error: Failure


class Step(msgspec.Struct):
    """A part of a run that is remembered: once it has succeeded or failed, it is not done again.

    `due_at`: when it is tried again, wakes up, or stops waiting.
    """

    key: Annotated[str, Meta(description="Its id; in a loop from the second time on with `#2`, `#3`, …", examples=["load-order"])]
    kind: Literal["run", "sleep", "event", "signal", "invoke", "send"]
    status: Literal["succeeded", "failed", "retrying", "waiting"]
    attempts: int
    started_at: Time
    finished_at: Time | None
    due_at: Time | None
    duration_ms: int | None
    subject: Annotated[str | None, Meta(description="The event name or signal it waits for, or the run that it invoked.")]
    error: Failure | None
    attempt_list: list[StepAttempt]
    output: Any = msgspec.UNSET


class Progress(msgspec.Struct):
    """How far a run says it is."""

    done: int
    total: int | None
    message: str
    at: Time


class Signalled(msgspec.Struct):
    """How many steps were waiting for the signal."""

    runs: int


class Run(msgspec.Struct):
    """One execution of a function, through all its attempts.

    `output` comes with `include=payload`, and from `/runs/{id}`, for keys with `payload:read`.
    """

    id: Annotated[str, Meta(examples=["run_01JD3ZC4QAF3S0J6N1R8E2KXWD"])]
    event_id: str
    event_name: str
    function_id: Annotated[str, Meta(examples=["fulfil-order"])]
    version: Annotated[
        int | None, Meta(description="The version of its function that it goes on with. Null where that has none, and once it is final.")
    ]
    status: RunStatus
    reason: Annotated[str | None, Meta(description=_REASONS)]
    attempts: int
    created_at: Time
    started_at: Time | None
    finished_at: Time | None
    next_attempt_at: Time | None
    worker_id: str | None
    error: Failure | None
    parent_run_id: Annotated[str | None, Meta(description="The run that invoked this one, or whose failure it handles.")]
    progress: Progress | None
    output: Annotated[Any, Meta(description="What the function returned.")] = msgspec.UNSET
    attempt_list: list[Attempt] | msgspec.UnsetType = msgspec.UNSET


class Delivery(msgspec.Struct):
    """What became of one event for one function: a run, or skipped with the reason."""

    event_id: str
    function_id: str
    replay_id: Annotated[str | None, Meta(description="Set when it came from a replay.")]
    run_id: str | None
    status: DeliveryStatus
    skip_reason: str | None
    attempts: Annotated[int, Meta(description="How many began; one that goes on is not in `attempt_list` yet.")]
    next_attempt_at: Time | None
    error: Failure | None
    attempt_list: Annotated[
        list[Attempt] | msgspec.UnsetType, Meta(description="Every ended attempt of its run; from `/events/{id}/deliveries`.")
    ] = msgspec.UNSET


class Request(msgspec.Struct):
    """One inbound HTTP request. `headers` come with `include=headers`, and from `/requests/{id}`, for keys with `payload:read`."""

    id: Annotated[str, Meta(examples=["req_01JD3ZC4Q8W6YH2M5T7V9XKBNR"])]
    source: str
    received_at: Time
    status: RequestStatus
    reason: Annotated[str | None, Meta(description="Why it was quarantined.", examples=["no_match"])]
    diagnosis: Annotated[str | None, Meta(description="The same in words, and what to do about it.")]
    event_id: str | None
    method: str
    url: str
    body_bytes: int
    secret: Annotated[int | None, Meta(description="The number of the source's secret that matched.")]
    headers: Annotated[Any, Meta(description="Pairs of name and value, as they came.")] = msgspec.UNSET


class LogLine(msgspec.Struct):
    """One line that a run has logged."""

    at: Time
    level: Annotated[str, Meta(examples=["info"])]
    attempt: int
    fence: Annotated[
        int, Meta(description="Rises when a worker takes the run up again, after a sleep too: then what stands before it is said again.")
    ]
    step: Annotated[str | None, Meta(description="The key of the step in which it was said, or null outside of any.")]
    message: str


class Function(msgspec.Struct):
    """A function as whoever executes it has published it."""

    id: str
    app: str
    version: Annotated[int | None, Meta(description="New runs get the highest that is offered.")]
    on: Annotated[list[str], Meta(description="Event names and wildcards.", examples=[["stripe/invoice.*"]])]
    if_: str | None = msgspec.field(name="if")
    retries: int
    timeout_ms: int | None
    paused_at: Time | None
    origin: Annotated[str, Meta(description="Where it is declared.")]
    description: str


class Provider(msgspec.Struct):
    """A plugin that knows one third party."""

    name: str
    title: str
    docs: str
    setup: Annotated[str, Meta(description="What to do at the third party.")]
    scheme: Annotated[dict[str, Any], Meta(description="How it signs: its `kind`, and what goes with it.")]
    type_at: str
    id_at: str
    events: Annotated[list[str], Meta(description="Event names with a typed class.")]
    samples: Annotated[list[str], Meta(description="What `tidegate trigger` and `POST /sources/{id}/test` can send.")]


class Secret(msgspec.Struct):
    """One signing secret of a source; never the secret itself."""

    n: int
    live: bool
    created_at: Time | None
    expires_at: Time | None
    last_used_at: Time | None


class Source(msgspec.Struct):
    """One configured inbound endpoint."""

    id: str
    name: str
    provider: str
    url: Annotated[str, Meta(description="What to enter at the third party.")]
    enabled: bool
    origin: Annotated[str, Meta(description="`api`, or the variable or file that configures it: then it is changed there.")]
    setup: str
    samples: Annotated[list[str], Meta(description="What `tidegate trigger` and `POST /sources/{id}/test` can send.")]
    secrets: list[Secret]
    left_out: Annotated[str | None, Meta(description="Why a source that is kept is not served; it answers 404.")] = None


class Key(msgspec.Struct):
    """An API key. `key` itself is shown once, when it is made."""

    id: str
    name: str
    scopes: list[Scope]
    created_at: Time
    expires_at: Time | None
    last_used_at: Time | None
    key: str | msgspec.UnsetType = msgspec.UNSET


class EventType(msgspec.Struct):
    """An event name: one that a provider or a function declares, or that has arrived."""

    name: str
    provider: str | None
    functions: Annotated[list[str], Meta(description="Functions that listen to it.")]
    schema: Annotated[Any, Meta(description="JSON Schema of its data, where a class declares it.")] = msgspec.UNSET
    sample: Annotated[Any, Meta(description="Realistic data, where the provider or the class has a sample.")] = msgspec.UNSET
    count: Annotated[int, Meta(description="Events stored, up to 10,000.")] | msgspec.UnsetType = msgspec.UNSET
    capped: bool | msgspec.UnsetType = msgspec.UNSET


class Count(msgspec.Struct):
    """How many there are; `capped` when there are more."""

    count: int
    capped: bool


class Sent(msgspec.Struct):
    """What a sent event became: the first one with its idempotency key."""

    id: str
    duplicate: bool


class SentMany(msgspec.Struct):
    """In the order they were sent."""

    data: list[Sent]


class Replayed(msgspec.Struct):
    """New runs of a stored event."""

    replay_id: str
    runs: list[str]


class Reprocessed(msgspec.Struct):
    """What became of a quarantined request that was verified again."""

    id: str
    status: RequestStatus
    reason: str | None
    event_id: str | None


class ReprocessedMany(msgspec.Struct):
    """Up to 200 at a time; go on with `next_cursor` until it is null."""

    data: list[Reprocessed]
    next_cursor: str | None


class Health(msgspec.Struct):
    """That the process answers."""

    status: Literal["ok"] = "ok"


class StoreHealth(msgspec.Struct):
    """Whether the database takes what arrives: `ok`, or what is wrong and what to do."""

    state: Literal["ok"] | StoreState
    detail: str | msgspec.UnsetType = msgspec.UNSET


class Backlog(msgspec.Struct):
    """What waits; counts up to 10,000."""

    due: int
    oldest_due_ms: int | None
    held: Annotated[int, Meta(description="Runs of functions that nobody offers.")]
    paused: int
    unwritten: Annotated[int, Meta(description="Commands of this process that wait for the database.")]


class BrokenModule(msgspec.Struct):
    """A file that was left out; the message comes with an API key only."""

    file: str
    message: str | None


class Readiness(msgspec.Struct):
    """Whether this gateway takes what arrives."""

    status: Literal["ready", "unavailable"]
    store: StoreHealth
    backlog: Backlog | msgspec.UnsetType = msgspec.UNSET
    broken: list[BrokenModule] | msgspec.UnsetType = msgspec.UNSET


class Member(msgspec.Struct):
    """What was wrong with one member of the request."""

    pointer: Annotated[str, Meta(description="A JSON pointer into the body.")]
    code: str
    detail: str


class Problem(msgspec.Struct):
    """An error: RFC 9457."""

    type: Annotated[str, Meta(examples=["urn:tidegate:problem:not_found"])]
    title: str
    status: int
    detail: Annotated[str, Meta(description="What is wrong and what to do.")]
    instance: str
    code: Annotated[str, Meta(description="Stable; listed in docs/api.md.", examples=["not_found"])]
    request_id: str
    errors: list[Member] | msgspec.UnsetType = msgspec.UNSET


class _Page(msgspec.Struct):
    next_cursor: Annotated[str | None, Meta(description="Where the next page begins; null on the last.")]
    prev_cursor: str | None
    has_more: bool


class EventPage(_Page, kw_only=True):
    """Events, newest first."""

    data: list[Event]


class RunPage(_Page, kw_only=True):
    """Runs, newest first."""

    data: list[Run]


class RequestPage(_Page, kw_only=True):
    """Requests, newest first."""

    data: list[Request]


class DeliveryPage(_Page, kw_only=True):
    """Deliveries, newest first."""

    data: list[Delivery]


class LogPage(msgspec.Struct):
    """Lines in the order they were said."""

    data: list[LogLine]
    next_cursor: str | None


class DeliveryList(msgspec.Struct):
    """All there are."""

    data: list[Delivery]


class AttemptList(msgspec.Struct):
    """All there are, in order."""

    data: list[Attempt]


class StepList(msgspec.Struct):
    """All there are, in the order they began."""

    data: list[Step]


class FunctionList(msgspec.Struct):
    """All there are."""

    data: list[Function]


class ProviderList(msgspec.Struct):
    """All there are."""

    data: list[Provider]


class SourceList(msgspec.Struct):
    """All there are."""

    data: list[Source]


class KeyList(msgspec.Struct):
    """All there are."""

    data: list[Key]


class EventTypeList(msgspec.Struct):
    """All there are, by name."""

    data: list[EventType]


# What clients send.


class NewKey(msgspec.Struct, forbid_unknown_fields=True):
    """An API key to make: what it is for, what it may do (`admin` includes all), and until when."""

    name: Annotated[str, Meta(min_length=1, max_length=100, pattern=WORD)]
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=5)]
    expires_at: When | None = None


class NewSource(msgspec.Struct, forbid_unknown_fields=True):
    """A source to make. Without secrets it refuses everything until it has one."""

    name: SourceName
    provider: str
    secrets: Annotated[list[SecretText], Meta(max_length=MAX_SECRETS)] = []


class SourceChange(msgspec.Struct, forbid_unknown_fields=True):
    """What can be changed of a source."""

    enabled: bool


class NewSecret(msgspec.Struct, forbid_unknown_fields=True):
    """A secret to add; `expire_others_at` ends the others, for a rotation."""

    secret: SecretText
    expires_at: When | None = None
    expire_others_at: When | None = None


class SecretChange(msgspec.Struct, forbid_unknown_fields=True):
    """When a secret ends; null for never, a time in the past for now."""

    expires_at: When | None


class Sample(msgspec.Struct, forbid_unknown_fields=True):
    """Which of the provider's samples to send."""

    type: str


class Reprocess(msgspec.Struct, forbid_unknown_fields=True):
    """Which quarantined requests to verify again: all of a source, of a time span."""

    source: Word
    since: When | None = None
    until: When | None = None
    cursor: Annotated[str, Meta(pattern=CURSOR)] | None = None
