"""Stripe: https://docs.stripe.com/webhooks/signature

An event's data is the `data` of Stripe's event, so a function reads `ctx.event.data.object`. Its key is Stripe's `evt_` id,
which stays the same when Stripe delivers again. Fields that not every API version sends may be missing.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import msgspec

from gateway import Event, Hmac, Inbound, Items, Parsed, Provider, declared_events

T = TypeVar("T")

Expandable = str | dict[str, Any] | None


class StripeData(msgspec.Struct, Generic[T]):
    """`data` of a Stripe event: the object as it was, and what an update changed."""

    object: T
    previous_attributes: dict[str, Any] | None = None


class StripeEvent(Event[StripeData[T]], Generic[T]):
    """An event from Stripe."""

    @property
    def account(self) -> str | None:
        """The connected account it is about, with Connect."""
        return self.attributes.get("account")

    @property
    def livemode(self) -> bool:
        """Whether it is about real money."""
        return self.attributes.get("livemode") is True


class Invoice(msgspec.Struct):
    """https://docs.stripe.com/api/invoices/object"""

    # An upcoming invoice has no id yet.
    id: str | None = None
    customer: Expandable = None
    currency: str | None = None
    amount_due: int = 0
    amount_paid: int = 0
    amount_remaining: int = 0
    total: int = 0
    status: str | None = None
    billing_reason: str | None = None
    customer_email: str | None = None
    hosted_invoice_url: str | None = None
    # Under `parent` since API version 2025-03-31.
    subscription: Expandable = None
    metadata: dict[str, str] | None = None


class Customer(msgspec.Struct):
    """https://docs.stripe.com/api/customers/object"""

    id: str
    email: str | None = None
    name: str | None = None
    phone: str | None = None
    metadata: dict[str, str] | None = None


class Subscription(msgspec.Struct):
    """https://docs.stripe.com/api/subscriptions/object"""

    id: str
    customer: Expandable = None
    status: str | None = None
    cancel_at_period_end: bool = False
    canceled_at: int | None = None
    trial_end: int | None = None
    metadata: dict[str, str] | None = None


class CheckoutSession(msgspec.Struct):
    """https://docs.stripe.com/api/checkout/sessions/object"""

    id: str
    mode: str | None = None
    status: str | None = None
    payment_status: str | None = None
    amount_total: int | None = None
    currency: str | None = None
    customer: Expandable = None
    client_reference_id: str | None = None
    payment_intent: Expandable = None
    subscription: Expandable = None
    metadata: dict[str, str] | None = None


class PaymentIntent(msgspec.Struct):
    """https://docs.stripe.com/api/payment_intents/object"""

    id: str
    amount: int
    currency: str
    status: str | None = None
    amount_received: int = 0
    customer: Expandable = None
    last_payment_error: dict[str, Any] | None = None
    metadata: dict[str, str] | None = None


class Charge(msgspec.Struct):
    """https://docs.stripe.com/api/charges/object"""

    id: str
    amount: int
    currency: str
    amount_refunded: int = 0
    refunded: bool = False
    paid: bool = False
    status: str | None = None
    customer: Expandable = None
    payment_intent: Expandable = None
    failure_code: str | None = None
    metadata: dict[str, str] | None = None


class Dispute(msgspec.Struct):
    """https://docs.stripe.com/api/disputes/object"""

    id: str
    amount: int
    currency: str
    reason: str | None = None
    status: str | None = None
    charge: Expandable = None


class Payout(msgspec.Struct):
    """https://docs.stripe.com/api/payouts/object"""

    id: str
    amount: int
    currency: str
    status: str | None = None
    arrival_date: int | None = None
    failure_code: str | None = None


class Refund(msgspec.Struct):
    """https://docs.stripe.com/api/refunds/object"""

    id: str
    amount: int
    currency: str
    status: str | None = None
    charge: Expandable = None
    reason: str | None = None


class PaymentMethod(msgspec.Struct):
    """https://docs.stripe.com/api/payment_methods/object"""

    id: str
    type: str
    customer: Expandable = None


class SetupIntent(msgspec.Struct):
    """https://docs.stripe.com/api/setup_intents/object"""

    id: str
    status: str | None = None
    customer: Expandable = None
    payment_method: Expandable = None


class Account(msgspec.Struct):
    """https://docs.stripe.com/api/accounts/object"""

    id: str
    charges_enabled: bool | None = None
    payouts_enabled: bool | None = None
    details_submitted: bool | None = None
    email: str | None = None


class InvoiceCreated(StripeEvent[Invoice], name="stripe/invoice.created"): ...


class InvoiceFinalized(StripeEvent[Invoice], name="stripe/invoice.finalized"): ...


class InvoicePaid(StripeEvent[Invoice], name="stripe/invoice.paid"): ...


class InvoicePaymentSucceeded(StripeEvent[Invoice], name="stripe/invoice.payment_succeeded"): ...


class InvoicePaymentFailed(StripeEvent[Invoice], name="stripe/invoice.payment_failed"): ...


class InvoicePaymentActionRequired(StripeEvent[Invoice], name="stripe/invoice.payment_action_required"): ...


class InvoiceUpcoming(StripeEvent[Invoice], name="stripe/invoice.upcoming"): ...


class InvoiceVoided(StripeEvent[Invoice], name="stripe/invoice.voided"): ...


class CustomerCreated(StripeEvent[Customer], name="stripe/customer.created"): ...


class CustomerUpdated(StripeEvent[Customer], name="stripe/customer.updated"): ...


class CustomerDeleted(StripeEvent[Customer], name="stripe/customer.deleted"): ...


class SubscriptionCreated(StripeEvent[Subscription], name="stripe/customer.subscription.created"): ...


class SubscriptionUpdated(StripeEvent[Subscription], name="stripe/customer.subscription.updated"): ...


class SubscriptionDeleted(StripeEvent[Subscription], name="stripe/customer.subscription.deleted"): ...


class SubscriptionTrialWillEnd(StripeEvent[Subscription], name="stripe/customer.subscription.trial_will_end"): ...


class SubscriptionPaused(StripeEvent[Subscription], name="stripe/customer.subscription.paused"): ...


class SubscriptionResumed(StripeEvent[Subscription], name="stripe/customer.subscription.resumed"): ...


class CheckoutSessionCompleted(StripeEvent[CheckoutSession], name="stripe/checkout.session.completed"): ...


class CheckoutSessionExpired(StripeEvent[CheckoutSession], name="stripe/checkout.session.expired"): ...


class CheckoutAsyncSucceeded(StripeEvent[CheckoutSession], name="stripe/checkout.session.async_payment_succeeded"): ...


class CheckoutAsyncFailed(StripeEvent[CheckoutSession], name="stripe/checkout.session.async_payment_failed"): ...


class PaymentIntentCreated(StripeEvent[PaymentIntent], name="stripe/payment_intent.created"): ...


class PaymentIntentSucceeded(StripeEvent[PaymentIntent], name="stripe/payment_intent.succeeded"): ...


class PaymentIntentFailed(StripeEvent[PaymentIntent], name="stripe/payment_intent.payment_failed"): ...


class PaymentIntentCanceled(StripeEvent[PaymentIntent], name="stripe/payment_intent.canceled"): ...


class ChargeSucceeded(StripeEvent[Charge], name="stripe/charge.succeeded"): ...


class ChargeFailed(StripeEvent[Charge], name="stripe/charge.failed"): ...


class ChargeRefunded(StripeEvent[Charge], name="stripe/charge.refunded"): ...


class DisputeCreated(StripeEvent[Dispute], name="stripe/charge.dispute.created"): ...


class DisputeClosed(StripeEvent[Dispute], name="stripe/charge.dispute.closed"): ...


class RefundCreated(StripeEvent[Refund], name="stripe/refund.created"): ...


class PayoutPaid(StripeEvent[Payout], name="stripe/payout.paid"): ...


class PayoutFailed(StripeEvent[Payout], name="stripe/payout.failed"): ...


class PaymentMethodAttached(StripeEvent[PaymentMethod], name="stripe/payment_method.attached"): ...


class SetupIntentSucceeded(StripeEvent[SetupIntent], name="stripe/setup_intent.succeeded"): ...


class AccountUpdated(StripeEvent[Account], name="stripe/account.updated"): ...


def _id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(12)}"


def _money(prefix: str, kind: str, **more: Any) -> dict[str, Any]:
    return {
        "id": _id(prefix),
        "object": kind,
        "amount": 4200,
        "currency": "eur",
        "customer": _id("cus"),
        "created": int(time.time()),
        "livemode": False,
        "metadata": {"order": "1001"},
        **more,
    }


def _invoice(**more: Any) -> dict[str, Any]:
    rest = _money("in", "invoice", amount_due=4200, amount_remaining=0, total=4200, customer_email="ada@example.com")
    return {**rest, "billing_reason": "subscription_cycle", "subscription": _id("sub"), **more}


def _subscription(**more: Any) -> dict[str, Any]:
    return {
        "id": _id("sub"),
        "object": "subscription",
        "customer": _id("cus"),
        "status": "active",
        "cancel_at_period_end": False,
        "currency": "eur",
        "metadata": {},
        "items": {"object": "list", "data": [{"id": _id("si"), "quantity": 1, "price": {"id": _id("price")}}]},
        **more,
    }


def _checkout(**more: Any) -> dict[str, Any]:
    rest = _money("cs_test", "checkout.session", amount_total=4200, mode="payment", client_reference_id="order-1001")
    return {**rest, "payment_intent": _id("pi"), "status": "complete", "payment_status": "paid", **more}


def _customer() -> dict[str, Any]:
    return {"id": _id("cus"), "object": "customer", "email": "ada@example.com", "name": "Ada Lovelace", "metadata": {}}


_OBJECTS: dict[str, Any] = {
    "invoice.paid": lambda: _invoice(status="paid", amount_paid=4200),
    "invoice.payment_failed": lambda: _invoice(status="open", amount_paid=0, amount_remaining=4200),
    "invoice.finalized": lambda: _invoice(status="open", amount_paid=0),
    "customer.created": _customer,
    "customer.subscription.created": _subscription,
    "customer.subscription.updated": lambda: _subscription(cancel_at_period_end=True),
    "customer.subscription.deleted": lambda: _subscription(status="canceled", canceled_at=int(time.time())),
    "checkout.session.completed": _checkout,
    "checkout.session.expired": lambda: _checkout(status="expired", payment_status="unpaid"),
    "payment_intent.succeeded": lambda: _money("pi", "payment_intent", status="succeeded", amount_received=4200),
    "payment_intent.payment_failed": lambda: _money("pi", "payment_intent", status="requires_payment_method"),
    "charge.succeeded": lambda: _money("ch", "charge", status="succeeded", paid=True),
    "charge.refunded": lambda: _money("ch", "charge", status="succeeded", refunded=True, amount_refunded=4200),
    "charge.dispute.created": lambda: _money("dp", "dispute", reason="fraudulent", status="needs_response"),
    "payout.paid": lambda: _money("po", "payout", status="paid", arrival_date=int(time.time())),
}


def _sample(type_: str) -> Mapping[str, Any]:
    return {
        "id": _id("evt"),
        "object": "event",
        "api_version": "2025-03-31.basil",
        "created": int(time.time()),
        "data": {"object": _OBJECTS[type_]()},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": _id("req"), "idempotency_key": None},
        "type": type_,
    }


class StripeHmac(Hmac):
    """What stands beside the signing secret in the Dashboard, and is easily taken for it, is refused."""

    def fault(self, secret: str) -> str | None:
        if secret.startswith(("sk_", "rk_", "pk_", "we_")):
            return "it is an API key, or an endpoint's id; the endpoint's signing secret begins with whsec_"
        return super().fault(secret)


class Stripe(Provider):
    """Every `v1` signature of the header is tried with every live secret; the time window has two sides."""

    name = "stripe"
    title = "Stripe"
    docs = "https://docs.stripe.com/webhooks"
    setup = "In the Dashboard under Developers > Webhooks, add this URL as an endpoint; its signing secret begins with whsec_."
    # The whole `whsec_…` text is the key: https://docs.stripe.com/webhooks/signature#verify-manually
    scheme = StripeHmac(
        header="Stripe-Signature",
        content="{timestamp}.{body}",
        items=Items(timestamp="t", signature="v1"),
        tolerance=300,
    )
    type_at = "type"
    id_at = "id"
    occurred_at = "created"
    data_at = "data"
    attributes = ("account", "livemode", "api_version")
    events = declared_events(globals())
    samples = {name: (lambda name=name: _sample(name)) for name in _OBJECTS}

    def parse(self, request: Inbound) -> Parsed:
        """As declared; a thin event (`v2.core.event`) has no snapshot, so that its data is the whole of it."""
        parsed = super().parse(request)
        if b'"v2.core.event"' not in request.body or '"data"' in request.body.decode("utf-8", "replace"):
            return parsed
        return Parsed(type=parsed.type, key=parsed.key, attributes=parsed.attributes)
