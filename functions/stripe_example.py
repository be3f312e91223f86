"""What a function looks like: it takes a typed event and returns what shall be remembered of it."""

from gateway import Context, function
from providers.stripe import CheckoutSessionCompleted, InvoicePaid


@function(on=InvoicePaid)
async def record_payment(ctx: Context[InvoicePaid]) -> dict[str, object]:
    """Remembers what was paid."""
    invoice = ctx.event.data.object
    ctx.logger.info("invoice %s is paid", invoice.id)
    return {"invoice": invoice.id, "amount_paid": invoice.amount_paid, "currency": invoice.currency}


@function(on=CheckoutSessionCompleted, if_="event.data.object.payment_status == 'paid'", retries=10)
def fulfil_order(ctx: Context[CheckoutSessionCompleted]) -> dict[str, object]:
    """A plain function runs in a thread of its own; `if_` keeps unpaid sessions out."""
    session = ctx.event.data.object
    return {"order": session.client_reference_id, "total": session.amount_total}
