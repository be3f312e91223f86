"""Errors as RFC 9457 problem details, with a stable `code`. The only place that chooses an HTTP status for an error."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response
from litestar.exceptions import HTTPException

from gateway import codec
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
    "timeout": (408, "Request Timeout", "The body did not arrive in time."),
    "internal": (
        500,
        "Internal Server Error",
        "Something went wrong on our side; the logs have it under the request id.",
    ),
    "unavailable": (503, "Service Unavailable", "Nothing was kept; send it again."),
    "overloaded": (503, "Service Unavailable", "Too much is waiting right now; nothing was kept, send it again."),
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


def problem(code: str, request_id: str, *, detail: str | None = None, instance: str = "", pointer: str | None = None) -> bytes:
    """The body of a problem."""
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
    if pointer is not None:
        body["errors"] = [{"pointer": pointer, "code": code, "detail": detail or text}]
    return codec.dumps(body)


def respond(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Litestar's exception handler for everything."""
    code, detail, pointer = _explain(error)
    if code == "internal":
        request.app.state.telemetry.emit("api.error", path=request.url.path, error=repr(error), exception=error)
    status = PROBLEMS[code][0]
    headers = {"Retry-After": "1"} if status == 503 else {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    request_id = new_id("req")
    body = problem(code, request_id, detail=detail, instance=request.url.path, pointer=pointer)
    return Response(body, status_code=status, media_type=MEDIA_TYPE, headers={**headers, "X-Request-Id": request_id})


def _explain(error: Exception) -> tuple[str, str | None, str | None]:
    if isinstance(error, InvalidRequest):
        return error.code, str(error), error.pointer
    for kind, code in _BY_CLASS:
        if isinstance(error, kind):
            # A driver's words about our store are for the logs, not for whoever calls.
            return code, None if isinstance(error, Unavailable) else str(error), None
    if isinstance(error, HTTPException) and error.status_code < 500:
        code = _BY_STATUS.get(error.status_code, "invalid_request")
        return code, None if code in ("not_found", "method_not_allowed") else error.detail.partition(" for ")[0], None
    return "internal", None, None
