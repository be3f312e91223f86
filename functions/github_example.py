"""Functions on GitHub's webhooks: one typed event, and a wildcard for several."""

from typing import Any

from gateway import Context, Event, function
from providers.github import Ping, Push


@function(on=Push, timeout=30)
async def summarise_push(ctx: Context[Push]) -> dict[str, object]:
    """Who pushed how many commits to which branch."""
    push = ctx.event.data
    return {"branch": push.ref.removeprefix("refs/heads/"), "commits": len(push.commits)}


@function(on=[Ping, "github/pull_request.*", "github/issues.*"])
async def note_activity(ctx: Context[Event[Any]]) -> str:
    """Any of several events, as plain JSON values where no class says what they are."""
    return f"{ctx.event.name} from {ctx.event.source}"
