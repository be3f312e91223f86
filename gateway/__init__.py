"""Tidegate: the names an author of functions and providers imports."""

from gateway.errors import NonRetriableError, RetryAfterError
from gateway.sdk.event import Event, declared_events
from gateway.sdk.function import Context, function
from gateway.sdk.provider import Parsed, Provider, Sample, body_key
from gateway.sdk.scheme import Hmac, Inbound, Items, Rejected, Scheme, Verdict, Verified

__all__ = [
    "Context",
    "Event",
    "Hmac",
    "Inbound",
    "Items",
    "NonRetriableError",
    "Parsed",
    "Provider",
    "Rejected",
    "RetryAfterError",
    "Sample",
    "Scheme",
    "Verdict",
    "Verified",
    "body_key",
    "declared_events",
    "function",
]
