"""Errors as RFC 9457 problem details, with a stable `code`. The only place that chooses an HTTP status for an error."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.typing import FieldDefinition

from gateway import codec
from gateway.api.patterns import in_words
from gateway.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    Overloaded,
    PreconditionFailed,
    TidegateError,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from gateway.ids import new_id

MEDIA_TYPE = "application/problem+json"
GONE = "client disconnected prematurely"  # by its words alone does Litestar tell this from a fault of ours

Members = Sequence[tuple[str, str]]

# code -> status, title, what to do about it
PROBLEMS: dict[str, tuple[int, str, str]] = {
    "verification_failed": (401, "Unauthorized", "The signature of this request could not be verified."),
    "unauthorized": (401, "Unauthorized", "Send an API key: `Authorization: Bearer tg_…`."),
    "forbidden": (403, "Forbidden", "This API key lacks the scope the call needs."),
    "unknown_source": (404, "Not Found", "There is no such source."),
    "not_found": (404, "Not Found", "There is nothing here."),
    "method_not_allowed": (405, "Method Not Allowed", "This resource does not take this method."),
    "conflict": (409, "Conflict", "The state of the resource does not allow this."),
    "precondition_failed": (412, "Precondition Failed", "The resource has changed since; read it again."),
    "too_large": (413, "Content Too Large", "The body is larger than this gateway accepts."),
    "unsupported_media_type": (415, "Unsupported Media Type", "Send the body uncompressed."),
    "invalid_request": (400, "Bad Request", "The request is not valid."),
    "invalid_cursor": (400, "Bad Request", "This cursor is not one of ours; start again without it."),
    "unknown_parameter": (400, "Bad Request", "There is no such parameter."),
    "invalid_event": (400, "Bad Request", "An event is not valid; none was kept."),
    "unreadable": (400, "Bad Request", "The request could not be read to its end."),
    "timeout": (408, "Request Timeout", "The request did not arrive in time."),
    "idempotency_mismatch": (422, "Unprocessable Content", "This `Idempotency-Key` came with another request; use a new one."),
    "idempotency_in_progress": (409, "Conflict", "A request with this `Idempotency-Key` is still being served; try again."),
    "rate_limited": (429, "Too Many Requests", "Too many calls within a minute; `Retry-After` says when to go on."),
    "headers_too_large": (431, "Request Header Fields Too Large", "The request's line and headers are larger than 64 KiB together."),
    "internal": (
        500,
        "Internal Server Error",
        "Something went wrong on our side; the logs have it under the request id.",
    ),
    "unavailable": (503, "Service Unavailable", "The database is away; this was not acknowledged, send it again."),
    "overloaded": (503, "Service Unavailable", "Too much is waiting right now; this was not acknowledged, send it again."),
}

_BY_CLASS: list[tuple[type[TidegateError], str]] = [
    (Unauthorized, "unauthorized"),
    (Forbidden, "forbidden"),
    (NotFound, "not_found"),
    (Conflict, "conflict"),
    (PreconditionFailed, "precondition_failed"),
    (TooLarge, "too_large"),
    (Overloaded, "overloaded"),
    (Unavailable, "unavailable"),
]
_BY_STATUS = {
    400: "invalid_request",
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
}


def problem(code: str, request_id: str, *, detail: str | None = None, instance: str = "", members: Members = ()) -> bytes:
    """The body of a problem; `members` are JSON pointers into the request's body with what is wrong there."""
    status, title, text = PROBLEMS[code]
    body: dict[str, Any] = {
        "type": f"urn:tidegate:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail or text,
        "instance": instance,
        "code": code,
        "request_id": request_id,
    }
    if members:
        body["errors"] = [{"pointer": pointer, "code": code, "detail": said} for pointer, said in members]
    return codec.dumps(body)


def code_of(error: Unavailable) -> str:
    """The code of our own trouble."""
    return "overloaded" if isinstance(error, Overloaded) else "unavailable"


def respond(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Litestar's exception handler for everything."""
    code, detail, members = _explain(error, request)
    request_id = request.scope["state"].get("request_id") or new_id("req")
    if code == "internal":
        telemetry = request.app.state.telemetry
        telemetry.emit("api.error", request=request_id, path=request.url.path, error=repr(error), exception=error)
    status = PROBLEMS[code][0]
    headers = {"Retry-After": "1"} if status == 503 else {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if isinstance(error, HTTPException):
        headers |= error.headers or {}
    body = problem(code, request_id, detail=detail, instance=request.url.path, members=members)
    return Response(body, status_code=status, media_type=MEDIA_TYPE, headers=headers)


def _explain(error: Exception, request: Request[Any, Any, Any]) -> tuple[str, str | None, Members]:
    if isinstance(error, InvalidRequest):
        return error.code, str(error), [(error.pointer, str(error))] if error.pointer is not None else []
    for kind, code in _BY_CLASS:
        if isinstance(error, kind):
            # A driver's words about our store are for the logs, not for whoever calls.
            return code, None if isinstance(error, Unavailable) else str(error), []
    if isinstance(error, ValidationException):
        return _invalid(error, request.route_handler.parsed_fn_signature.parameters)
    if isinstance(error, HTTPException) and error.detail == GONE:
        return "unreadable", None, []
    if isinstance(error, HTTPException) and error.status_code < 500:
        code = _BY_STATUS.get(error.status_code, "invalid_request")
        return code, None if code in ("not_found", "method_not_allowed", "too_large") else error.detail, []
    return "internal", None, []


class _Fault(msgspec.Struct):
    """One thing that Litestar found wrong."""

    message: str
    key: str = ""
    source: str = ""


def _invalid(error: ValidationException, parameters: Mapping[str, FieldDefinition]) -> tuple[str, str | None, Members]:
    try:
        faults = msgspec.convert(error.extra, list[_Fault])
    except msgspec.ValidationError:
        return "invalid_request", error.detail.partition(" for ")[0], []
    told = [("" if fault.key == "data" else fault.key, _words(fault, parameters), fault.source) for fault in faults]
    detail = "; ".join(f"{key}: {message}" if key else message for key, message, _ in told)
    members = [(_pointer(key), message) for key, message, source in told if source in ("body", "")]
    return "invalid_request", detail, members


def _words(fault: _Fault, parameters: Mapping[str, FieldDefinition]) -> str:
    """A fault in words; of an enumeration with what it takes, which msgspec leaves open."""
    if not fault.message.startswith("Invalid enum value"):
        return in_words(fault.message)
    name = re.split(r"[.\[]", fault.key)[0]
    kind = parameters[name].annotation if name in parameters else get_type_hints(parameters["data"].annotation)[name]
    return f"{fault.message}; there are {', '.join(_choices(kind))}"


def _choices(kind: Any) -> list[str]:
    """The values of the Literal in an annotation."""
    return [str(one) for part in get_args(kind) for one in ([part] if get_origin(kind) is Literal else _choices(part))]


def _pointer(key: str) -> str:
    """`secrets[0]` and `a.b` as JSON pointers."""
    return "".join(f"/{part}" for part in re.split(r"[.\[\]]+", key) if part)
