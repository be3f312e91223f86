"""What OpenAPI says of the routes beyond their signatures: answers, problems, bodies that are read as bytes, formats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from litestar import Request
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import ResponseSpec
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, Example, OpenAPIMediaType, Operation, RequestBody, SecurityScheme, Tag
from litestar.openapi.spec import Schema as Described
from litestar.types import Method
from litestar.types.internal_types import PathParameterDefinition

from gateway.api import schemas
from gateway.api.problems import MEDIA_TYPE, PROBLEMS

Responses = dict[int, ResponseSpec]

TEXTS = {
    400: "The request is not valid.",
    401: "No API key, or one that is not known or has ended.",
    403: "The API key lacks the scope.",
    404: "There is no such thing.",
    409: "The state of the resource does not allow this, or the same `Idempotency-Key` is being served.",
    412: "The resource has changed since: `If-Match` does not fit.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    422: "The `Idempotency-Key` was used with another request.",
    429: "Too many calls; `Retry-After` says when to go on.",
    500: "Something went wrong here.",
    503: "The store is away; `Retry-After` says when to try again.",
}
# Of the codes that share a status, the one to show.
CODES = {
    400: "invalid_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    409: "conflict",
    412: "precondition_failed",
    413: "too_large",
    415: "unsupported_media_type",
    422: "idempotency_mismatch",
    429: "rate_limited",
    500: "internal",
    503: "unavailable",
}
EVERYWHERE = (400, 401, 403, 429, 500, 503)


def answers(kind: Any, *problems: int, status: int = 200, text: str = "", example: Any = None) -> Responses:
    """The good answer of a route, and the problems it may answer with beside those that any may."""
    examples = [Example(value=msgspec.to_builtins(example))] if example is not None else None
    good = ResponseSpec(kind, description=text or "Done.", generate_examples=False, examples=examples)
    return {status: good, **{code: _problem(code) for code in sorted({*EVERYWHERE, *problems})}}


def public(kind: Any, *problems: int) -> Responses:
    """The answers of a route that needs no API key."""
    return {200: ResponseSpec(kind, description="Done.", generate_examples=False), **{code: _problem(code) for code in (500, *problems)}}


def raw(media_type: str, text: str, *problems: int) -> Responses:
    """The answer of a route that answers with bytes."""
    good = ResponseSpec(bytes, description=text, media_type=media_type, generate_examples=False)
    return {200: good, **{code: _problem(code) for code in sorted({*EVERYWHERE, *problems})}}


def _problem(status: int) -> ResponseSpec:
    code = CODES[status]
    _, title, detail = PROBLEMS[code]
    shown = schemas.Problem(
        type=f"urn:tidegate:problem:{code}",
        title=title,
        status=status,
        detail=detail,
        instance="/api/v1/…",
        code=code,
        request_id="req_01JD3ZC4Q8W6YH2M5T7V9XKBNR",
    )
    example = Example(value=msgspec.to_builtins(shown))
    return ResponseSpec(schemas.Problem, description=TEXTS[status], media_type=MEDIA_TYPE, generate_examples=False, examples=[example])


def body(schema: Mapping[str, Any], example: Any, *, required: bool = True) -> type[Operation]:
    """The operation of a route that reads its JSON body itself, exactly as it came."""
    content = {"application/json": OpenAPIMediaType(schema=_Verbatim(dict(schema)), examples={"example": Example(value=example)})}

    @dataclass
    class Described(Operation):
        def __post_init__(self) -> None:
            self.request_body = RequestBody(content=content, required=required)

    return Described


class _Verbatim(Described):
    """A JSON Schema as it stands."""

    def __init__(self, schema: dict[str, Any]) -> None:
        super().__init__()
        self._schema = schema

    def to_schema(self) -> dict[str, Any]:
        return self._schema


class Document(JsonRenderPlugin):
    """Serves the document at `/schema` and `/schema/openapi.json`, with the resources as msgspec itself describes them."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        kinds = [kind for kind in vars(schemas).values() if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]
        _, described = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
        named = openapi_schema["components"]["schemas"]
        whole = {**openapi_schema["components"], "schemas": {**named, **{name: described[name] for name in described}}}
        return self.render_json(request, {**openapi_schema, "components": whole})  # pyright: ignore[reportUnknownMemberType]


def operation_id(handler: HTTPRouteHandler, _method: Method, _path: list[str | PathParameterDefinition]) -> str:
    """`list_events` as `listEvents`: what generated clients call the operation."""
    first, *rest = handler.handler_name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def config() -> OpenAPIConfig:
    """Litestar's settings for the document."""
    return OpenAPIConfig(
        title="Tidegate's event delivery API",
        version="1",
        description=(
            "What arrived, what became of it, and how to run it again. Lists are newest first, by cursor; a repeated filter "
            "means or, names take `*`; errors are RFC 9457 problem details with a stable `code`."
        ),
        operation_id_creator=operation_id,
        render_plugins=[Document(path=["/", "/openapi.json"])],
        security=[{"key": []}],
        components=Components(security_schemes={"key": SecurityScheme(type="http", scheme="bearer", description="An API key: `tg_…`.")}),
        tags=[Tag(name=name) for name in ("events", "requests", "runs", "functions", "sources", "keys", "health")],
    )
