"""Commands that are processes: serve, gateway, worker, migrate, doctor."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.settings import Settings, load

if TYPE_CHECKING:
    from gateway.engine.supervisor import Supervisor
    from gateway.observe.meter import Meter
    from gateway.telemetry import Telemetry

Path_ = Annotated[list[str] | None, typer.Option("--path", help="A further folder of functions.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    for command in (serve, dev, gateway, worker, migrate, doctor):
        app.command()(command)


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes.")] = None,
    path: Path_ = None,
) -> None:
    """Run everything: a gateway and its workers, supervised; the database is made and migrated by itself."""
    _override(host=host, port=port, workers=workers, path=path)
    _supervise(reload=False)


def dev(
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    path: Path_ = None,
) -> None:
    """As `serve`, for development: starts anew when a function or provider changes; on loopback, where the API needs no key."""
    os.environ["TIDEGATE_OPEN_API"] = "1"
    _override(port=port, path=path)
    _supervise(reload=True)


def _supervise(*, reload: bool) -> None:
    import asyncio

    from gateway.cli.banner import print_banner
    from gateway.engine.supervisor import Program, Supervisor
    from gateway.store import schema

    settings = load()
    telemetry = _telemetry()
    if settings.resolved_database_url.startswith("sqlite"):
        schema.migrate(settings.resolved_database_url)
    schema.check(settings.resolved_database_url)
    _publish_apart()
    programs = [Program("gateway", ["gateway", "--quiet"])]
    programs += [Program(f"worker {n}", ["worker"]) for n in range(1, settings.workers + 1)]
    supervisor = Supervisor(programs, telemetry, settings.shutdown_seconds + 5)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, supervisor.stop)
        banner = asyncio.create_task(asyncio.to_thread(print_banner, settings))
        reloading = asyncio.create_task(_reload(settings, supervisor)) if reload else None
        await supervisor.run()
        for task in (banner, reloading):
            if task is not None:
                task.cancel()

    asyncio.run(main())


async def _reload(settings: Settings, supervisor: Supervisor) -> None:
    """Publish and start anew whenever a Python file of a provider or function changes."""
    import asyncio

    import watchfiles

    places = [Path("functions"), Path("providers"), *settings.functions, *settings.providers]
    watched = [place for place in places if place.is_dir()]
    async for changes in watchfiles.awatch(*watched, watch_filter=watchfiles.PythonFilter()):  # pyright: ignore[reportUnknownMemberType]
        typer.echo(f"{Path(next(iter(changes))[1]).name} changed; starting anew")
        await asyncio.to_thread(_publish_apart)
        supervisor.restart()


def gateway(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", hidden=True)] = False,
) -> None:
    """Run one gateway: it receives webhooks and serves the API."""
    import uvloop

    from gateway.app import Gateway, serve_gateway

    _override(host=host, port=port)
    settings = load()
    _end_with_parent()
    telemetry, meter = _metered()
    served = Gateway(settings, telemetry, meter)

    def ready() -> None:
        if served.new_api_key:
            typer.echo(f"Admin API key, shown only this once: {served.new_api_key}")
        if not quiet:
            typer.echo(f"Gateway at {settings.base_url}, sources: {', '.join(served.live.sources) or 'none'}")

    uvloop.run(serve_gateway(served, ready))


def worker(
    path: Path_ = None,
    concurrency: Annotated[int | None, typer.Option(help="Runs at a time.")] = None,
    publish_only: Annotated[bool, typer.Option("--publish-only", hidden=True)] = False,
) -> None:
    """Run one worker: it publishes the functions found and runs what is due."""
    import uvloop

    from gateway.worker import publish, run_worker

    _override(path=path, concurrency=concurrency)
    settings = load()
    telemetry, meter = _metered()
    if publish_only:
        publish(settings, telemetry)
        return
    _end_with_parent()
    uvloop.run(run_worker(settings, telemetry, meter))


def migrate() -> None:
    """Bring the database to this version's schema."""
    from gateway.store import schema

    before, after = schema.migrate(load().resolved_database_url)
    typer.echo(f"The database is at schema {after}." if before == after else f"Migrated from {before or 'nothing'} to {after}.")


def doctor() -> None:
    """Look over settings, database, providers, functions and what waits; says what is wrong and what to do."""
    from gateway.cli.doctor import examine

    raise typer.Exit(examine(load()))


def _telemetry() -> Telemetry:
    from gateway.observe.logs import LogListener, configure
    from gateway.telemetry import Telemetry

    configure()
    return Telemetry(LogListener())


def _metered() -> tuple[Telemetry, Meter]:
    from gateway.clock import system_clock
    from gateway.observe.meter import Meter

    telemetry, meter = _telemetry(), Meter(system_clock)
    telemetry.listeners.append(meter)
    return telemetry, meter


def _override(
    *,
    host: str | None = None,
    port: int | None = None,
    workers: int | None = None,
    concurrency: int | None = None,
    path: list[str] | None = None,
) -> None:
    """Options stand above the environment, for this process and those it starts."""
    given = {"HOST": host, "PORT": port, "WORKERS": workers, "CONCURRENCY": concurrency}
    for name, value in given.items():
        if value is not None:
            os.environ[f"TIDEGATE_{name}"] = str(value)
    if path:
        known = os.environ.get("TIDEGATE_FUNCTIONS", "").split(os.pathsep)
        os.environ["TIDEGATE_FUNCTIONS"] = os.pathsep.join(dict.fromkeys(filter(None, [*known, *path])))


def _publish_apart() -> None:
    """Publish in a process of its own, before the gateway is ready: user code is never imported by the supervisor."""
    import subprocess

    from gateway.engine.supervisor import command

    try:
        subprocess.run(command(["worker", "--publish-only"]), check=False, timeout=30)  # noqa: S603
    except subprocess.TimeoutExpired:
        typer.echo("The functions took more than 30 s to import; the workers will publish them when they are done.", err=True)


def _end_with_parent() -> None:
    """End in good order when the supervisor is gone, however it went."""
    parent = os.environ.get("TIDEGATE_PARENT_FD")
    if parent is None:
        return

    def watch() -> None:
        while os.read(int(parent), 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()
