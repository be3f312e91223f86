"""Tidegate: the names an author of functions and providers imports."""

from gateway.errors import NonRetriableError, RetryAfterError, StepError
from gateway.sdk.context import Context, SyncContext
from gateway.sdk.event import Event, declared_events
from gateway.sdk.function import CancelOn, Idempotency, Timeouts, function
from gateway.sdk.provider import Parsed, Provider, Sample, body_key
from gateway.sdk.scheme import Hmac, Inbound, Items, Rejected, Scheme, Verdict, Verified
from gateway.sdk.step import new_event

__all__ = [
    "CancelOn",
    "Context",
    "Event",
    "Hmac",
    "Idempotency",
    "Inbound",
    "Items",
    "NonRetriableError",
    "Parsed",
    "Provider",
    "Rejected",
    "RetryAfterError",
    "Sample",
    "Scheme",
    "StepError",
    "SyncContext",
    "Timeouts",
    "Verdict",
    "Verified",
    "body_key",
    "declared_events",
    "function",
    "new_event",
]
