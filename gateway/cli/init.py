"""`tidegate init`: a small project to start from, which `tidegate dev` runs as it stands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from gateway.errors import InvalidRequest

HELLO = '''\
"""Two functions. Every Python file in functions/ is found; while `tidegate dev` runs, saving one starts it anew."""

from dataclasses import dataclass

from gateway import Context, Event, function
from providers.stripe import InvoicePaid


@dataclass
class Person:
    """The data of an event of our own."""

    name: str


class Hello(Event[Person], name="hello/said"): ...


@function(on=Hello)
async def greet(ctx: Context[Hello]) -> dict[str, str]:
    """Runs when somebody sends `hello/said`."""
    ctx.logger.info("%s says hello", ctx.event.data.name)
    return {"greeting": f"Hello, {ctx.event.data.name}!"}


@function(on=InvoicePaid, retries=5)
async def thank_customer(ctx: Context[InvoicePaid]) -> dict[str, object]:
    """Runs when Stripe says that an invoice is paid."""
    invoice = ctx.event.data.object  # typed: your editor knows what is in it
    return {"thanked": invoice.customer_email, "paid": invoice.amount_paid}
'''

SETTINGS = """\
# Tidegate's settings, with their defaults. TIDEGATE_… in the environment stands above this file: TIDEGATE_PORT above `port`.
# Secrets (TIDEGATE_MASTER_KEY, TIDEGATE_API_KEY, STRIPE_WEBHOOK_SECRET, …) belong into the environment, not here.

# host = "127.0.0.1"
# port = 8288

# What third parties reach this gateway by; `tidegate sources` shows it.
# public_url = "https://hooks.example.com"

# SQLite in the data directory, unless it is postgresql://user@host/name.
# data_dir = "data"
# database_url = ""

# Worker processes of `tidegate serve`, and runs at a time in each.
# workers = 1
# concurrency = 100

# How long attempts may go on after SIGTERM.
# shutdown_seconds = 20.0

# How many days events stay with what became of them; of failed runs.
# retention_days = 30.0
# retention_failed_days = 90.0

# A second endpoint of one provider. Its secret may stand here, or be added with `tidegate sources`.
# [sources.stripe-test]
# provider = "stripe"
# secret = "whsec_…"
"""

IGNORED = """\
# The database and the master key.
data/
.env
.venv/
__pycache__/
"""

FILES = {"functions/hello.py": HELLO, "tidegate.toml": SETTINGS, ".gitignore": IGNORED}

NEXT = """\

and in another terminal, in the same folder:
  tidegate send hello/said --data '{"name": "Ada"}'
  tidegate runs
  tidegate sources add stripe --generate
  tidegate trigger stripe invoice.paid"""


def init(folder: Annotated[Path, typer.Argument(metavar="NAME", help="The folder to make; `.` for this one, if it is empty.")]) -> None:
    """Make a project: two functions to change, commented settings, and what git shall leave out."""
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InvalidRequest(f"{folder} is there already and not an empty folder; nothing was written, choose another name")
        for name, text in FILES.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    except OSError as error:
        raise InvalidRequest(f"{error.filename or folder} cannot be written: {error.strerror}") from None
    typer.echo(f"Made {', '.join(os.path.relpath(folder / name) for name in FILES)}\n\nNext:")
    if folder.resolve() != Path.cwd():
        typer.echo(f"  cd {folder}")
    typer.echo(f"  tidegate dev\n{NEXT}")
