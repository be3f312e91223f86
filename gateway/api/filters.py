"""List parameters as the API has them, turned into a query."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any

from litestar.openapi.spec import OpenAPIType, Schema
from litestar.params import Parameter

from gateway.api import schemas
from gateway.api.patterns import CURSOR, RFC_3339, WORD
from gateway.clock import NEVER, SECOND, Micros, from_datetime
from gateway.errors import InvalidRequest
from gateway.ids import first_id
from gateway.store.reads import DELIVERY_STATUS, REQUEST_STATUS, RUN_STATUS, Query, one_of

MAX_VALUES = 50
TIMES = {"e.id": "e.received_at", "d.event_id": "e.received_at", "q.id": "q.received_at", "r.id": "r.created_at"}
ID_SLACK: Micros = 60 * SECOND  # longer than a body may take to arrive
STATUSES = "May be repeated: any of the values matches."


def text(description: str, **shape: str) -> Any:
    """A query parameter that is one text, with what JSON Schema says of it."""
    return Parameter(description=description, schema_extra={"one_of": None, "type": OpenAPIType.STRING, **shape})


def several(description: str, *choices: str) -> Any:
    """A query parameter that may be repeated; of `choices`, if there are any."""
    item = Schema(type=OpenAPIType.STRING, enum=choices) if choices else Schema(type=OpenAPIType.STRING, pattern=WORD, max_length=500)
    shape = {"one_of": None, "type": OpenAPIType.ARRAY, "max_items": MAX_VALUES, "items": item}
    return Parameter(max_items=MAX_VALUES, description=description, schema_extra=shape)


Limit = Annotated[int, Parameter(ge=1, le=200, description="How many, at most 200.")]
Cursor = Annotated[str | None, text("Where to go on, from `next_cursor` or `prev_cursor`.", pattern=CURSOR)]
Since = Annotated[str | None, text("Only from this time on (RFC 3339).", format="date-time")]
Until = Annotated[str | None, text("Only before this time (RFC 3339).", format="date-time")]
Many = Annotated[list[schemas.Word] | None, several("May be repeated: any of the values matches. `*` is a wildcard.")]
RunStatuses = Annotated[list[schemas.Word] | None, several(STATUSES, *RUN_STATUS)]
DeliveryStatuses = Annotated[list[schemas.Word] | None, several(STATUSES, *DELIVERY_STATUS)]
RequestStatuses = Annotated[list[schemas.Word] | None, several(STATUSES, *REQUEST_STATUS)]


def filters(limit: int, cursor: str | None, columns: Mapping[str, Sequence[str] | None]) -> Query:
    """A query in which each column with values must have one of them."""
    conditions: list[str] = []
    parameters: list[Any] = []
    for column, values in columns.items():
        if values:
            condition, given = one_of(column, values)
            conditions.append(condition)
            parameters += given
    return Query(limit=limit, cursor=cursor, conditions=conditions, parameters=parameters)


def with_status(query: Query, given: Sequence[str] | None, conditions: Mapping[str, str]) -> Query:
    """The query, for rows that have one of the given statuses. Raises InvalidRequest, naming them, for another word."""
    if not given:
        return query
    unknown = [status for status in given if status not in conditions]
    if unknown:
        raise InvalidRequest(f"There is no status {unknown[0]!r}; there are {', '.join(conditions)}.")
    either = " or ".join(f"({conditions[status]})" for status in dict.fromkeys(given))
    return replace(query, conditions=[*query.conditions, f"({either})"])


def between(query: Query, column: str, prefix: str, since: str | None, until: str | None) -> Query:
    """The query, for rows of a time span, by the time their row shows. Ids, which begin with `prefix`, sort by time and are
    what is indexed; they are made a little before it."""
    conditions, parameters = list(query.conditions), list(query.parameters)
    for name, text, comparison, slack in (("since", since, ">=", -ID_SLACK), ("until", until, "<", ID_SLACK)):
        if text is not None:
            at = instant(text, name)
            conditions += [f"{column} {comparison} ?", f"{TIMES[column]} {comparison} ?"]
            parameters += [first_id(prefix, (at + slack) // 1000), at]
    return replace(query, conditions=conditions, parameters=parameters)


def instant(text: str, name: str) -> Micros:
    """An RFC 3339 time. Raises InvalidRequest, naming the parameter or member, for anything else."""
    try:
        when = datetime.fromisoformat(text.upper()) if re.fullmatch(RFC_3339, text, re.ASCII) else None
    except ValueError:
        when = None
    if when is None:
        raise InvalidRequest(f"`{name}` is not a time such as 2026-11-24T08:00:00Z: {text!r}.", pointer=f"/{name}")
    return min(max(from_datetime(when), 0), NEVER)
