"""List parameters as the API has them, turned into a query."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any

from litestar.params import Parameter
from msgspec import Meta

from gateway.api import schemas
from gateway.api.patterns import CURSOR, RFC_3339, WORD
from gateway.clock import NEVER, Micros, from_datetime
from gateway.errors import InvalidRequest
from gateway.ids import first_id
from gateway.store.reads import Query, one_of

MAX_VALUES = 50
STATUSES = "May be repeated: any of the values matches."

Word = Annotated[str, Meta(pattern=WORD, max_length=500)]
Limit = Annotated[int, Parameter(ge=1, le=200, description="How many, at most 200.")]
Cursor = Annotated[str | None, Parameter(pattern=CURSOR, description="Where to go on, from `next_cursor` or `prev_cursor`.")]
Many = Annotated[
    list[Word] | None,
    Parameter(max_items=MAX_VALUES, description="May be repeated: any of the values matches. `*` is a wildcard."),
]
RunStatuses = Annotated[list[schemas.RunStatus] | None, Parameter(max_items=MAX_VALUES, description=STATUSES)]
DeliveryStatuses = Annotated[list[schemas.DeliveryStatus] | None, Parameter(max_items=MAX_VALUES, description=STATUSES)]
RequestStatuses = Annotated[list[schemas.RequestStatus] | None, Parameter(max_items=MAX_VALUES, description=STATUSES)]
When = Annotated[str, Meta(pattern=RFC_3339, description="RFC 3339, with a time zone.", examples=["2026-11-24T08:00:00Z"])]
Since = Annotated[str | None, Parameter(pattern=RFC_3339, description="Only from this time on (RFC 3339).")]
Until = Annotated[str | None, Parameter(pattern=RFC_3339, description="Only before this time (RFC 3339).")]


def filters(limit: int, cursor: str | None, columns: Mapping[str, Sequence[str] | None]) -> Query:
    """A query in which each column with values must have one of them."""
    conditions: list[str] = []
    parameters: list[Any] = []
    for column, values in columns.items():
        if values:
            if len(values) > MAX_VALUES or any("\0" in value for value in values):
                raise InvalidRequest(f"A filter takes at most {MAX_VALUES} values, without NUL characters.")
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
    """The query, for rows whose id, which begins with `prefix`, was made in a time span: ids sort by time."""
    conditions, parameters = list(query.conditions), list(query.parameters)
    for name, text, comparison in (("since", since, ">="), ("until", until, "<")):
        if text is not None:
            conditions.append(f"{column} {comparison} ?")
            parameters.append(first_id(prefix, instant(text, name) // 1000))
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
