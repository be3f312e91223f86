"""List parameters as the API has them, turned into a query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from litestar.params import Parameter

from gateway.errors import InvalidRequest
from gateway.store.reads import Query, one_of

Limit = Annotated[int, Parameter(ge=1, le=200, description="How many, at most 200.")]
Cursor = Annotated[str | None, Parameter(description="Where to go on, from `next_cursor` or `prev_cursor`.")]
Many = Annotated[list[str] | None, Parameter(description="May be repeated; any of the values matches, `*` is a wildcard.")]

MAX_VALUES = 50


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
