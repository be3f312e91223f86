"""Sites that many modules share: two gateways and two workers on each database, and a single gateway with tight limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest

from tests.processes import Site, free_port, site, until

# What is counted is written down every few seconds; a test must not wait for that.
OFTEN = """
import gateway.observe.meter

gateway.observe.meter.FLUSH_SECONDS = 0.3
"""
FUNCTIONS = (
    OFTEN
    + """
import asyncio
import logging
from dataclasses import dataclass

from gateway import Context, Event, NonRetriableError, SyncContext, function
from providers.stripe import ChargeSucceeded


@dataclass
class User:
    id: int


class UserCreated(Event[User], name="user/created"):
    sample = {"id": 7}


@function(on=UserCreated, retries=0)
async def greet(ctx: Context[UserCreated]) -> int:
    return ctx.event.data.id


@function(on="stripe/*")
async def quick(ctx: Context) -> int:
    return ctx.attempt


@function(on=ChargeSucceeded)
async def typed(ctx: Context[ChargeSucceeded]) -> int:
    return ctx.event.data.object.amount


@function(on="own/pausable")
async def pausable(ctx: Context) -> object:
    return ctx.event.data


@function(on="own/stopped")
async def stopped(ctx: Context) -> object:
    return ctx.event.data


@function(on="own/raced")
async def raced(ctx: Context) -> object:
    return ctx.event.data


@function(on="own/trace")
async def trace(ctx: Context) -> str | None:
    return ctx.traceparent


@function(on="own/fail", retries=0)
async def fail(ctx: Context) -> None:
    raise NonRetriableError("this can never work")


@function(on="own/*", if_="event.data.n > 3")
async def conditional(ctx: Context) -> object:
    return ctx.event.data.get("n")


@function(on="own/talk", retries=0)
def talk(ctx: Context) -> None:
    ctx.logger.info("hello %s", ctx.event.data["who"])
    logging.getLogger("my.library").warning("from a library, in a thread")
    print("this was printed")
    try:
        raise ValueError("told with its traceback")
    except ValueError:
        ctx.logger.exception("it went wrong")
    ctx.logger.info("a NUL \\0, a lone surrogate \\ud800, and " + "x" * 10_000)


def noted(name: str) -> None:
    logging.getLogger("my.library").info("noted %s", name)


async def noted_twice(name: str) -> None:
    noted(name)
    await asyncio.to_thread(noted, name)


@function(on="own/note", retries=0)
async def note(ctx: Context) -> None:
    noted("before")
    await asyncio.gather(*(ctx.step.run(name, noted_twice, name) for name in ("a", "b")))
    noted("after")


@function(on="own/jot", retries=0)
def jot(ctx: SyncContext) -> None:
    noted("before")
    ctx.step.map("all", noted, ["all/0", "all/1"])
    ctx.step.run("alone", noted, "alone")
    noted("after")


@function(on="own/babble", retries=0)
async def babble(ctx: Context) -> None:
    for n in range(1500):
        ctx.logger.info("line %d", n)
"""
)

TOML = """
[sources.from-toml]
provider = "stripe"
secret = "whsec_from_toml"
"""


@dataclass
class Many:
    """One installation with two gateways and two workers; `ports` are the gateways'."""

    site: Site
    ports: tuple[int, int]


@pytest.fixture(scope="package", params=["sqlite", "postgresql"])
def many(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Many]:
    url = ""
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres_server")
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute("create database many")
        base, question, rest = server.partition("?")
        url = base.rpartition("/")[0] + "/many" + question + rest
    folder = tmp_path_factory.mktemp("many")
    (folder / "tidegate.toml").write_text(TOML)
    (folder / "often").mkdir()
    (folder / "often" / "counts.py").write_text(OFTEN)
    settings = {
        "GITHUB_WEBHOOK_SECRET": "gh-test-newest,gh-test",
        "TIDEGATE_PUBLIC_URL": "https://hooks.example.com",
        "TIDEGATE_PROVIDERS": "often",
    }
    with site(folder, database_url=url, functions=FUNCTIONS, settings=settings) as made:
        made.run("migrate")
        other = free_port()
        for port in (made.port, other):
            made.start("gateway", port=port)
        for _ in range(2):
            made.start("worker")
        for port in (made.port, other):
            made.wait_ready(port)
            until(lambda port=port: made.get("/functions", port)["data"])
        yield Many(made, (made.port, other))


TIGHT = """
import gateway.api.protocol
import gateway.store.journal

gateway.api.protocol.HEAD_SECONDS = 1.0
gateway.api.protocol.BODY_SECONDS = 0.3
gateway.store.journal.MAX_QUEUED = 12
"""


@pytest.fixture(scope="package")
def tight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A gateway at whose limits one is soon."""
    folder = tmp_path_factory.mktemp("tight")
    settings = {
        "TIDEGATE_MAX_BODY_BYTES": "100000",
        "TIDEGATE_API_CALLS_PER_MINUTE": "300",
        "TIDEGATE_QUARANTINE_PER_MINUTE": "10",
        "TIDEGATE_QUARANTINE_BYTES": "20000",
        "TIDEGATE_PROVIDERS": "tight",
    }
    (folder / "tight").mkdir()
    (folder / "tight" / "limits.py").write_text(TIGHT)
    with site(folder, settings=settings) as made:
        made.run("migrate")
        made.start("gateway")
        made.wait_ready()
        yield made


@pytest.fixture
def key_of(many: Many):
    """Makes an API key with scopes."""

    def make(*scopes: str, expires_at: str | None = None) -> str:
        made = many.site.call("POST", "/keys", {"name": "test", "scopes": scopes, "expires_at": expires_at})
        return made.json()["key"]

    return make
