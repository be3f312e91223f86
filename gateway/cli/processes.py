"""Commands that are single processes: gateway, worker, migrate, doctor; and what all that run have in common."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.output import Json
from gateway.ids import new_id
from gateway.settings import Settings, load

if TYPE_CHECKING:
    from gateway.observe.meter import Meter
    from gateway.telemetry import Telemetry

Path_ = Annotated[list[str] | None, typer.Option("--path", help="A further folder of functions.")]


def gateway(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
) -> None:
    """Run one gateway: it receives webhooks and serves the API."""
    import uvloop

    from gateway.api.listener import inherited, listen
    from gateway.app import Gateway, serve_gateway

    override(host=host, port=port)
    settings = load()
    _end_with_parent()
    listener = inherited()
    alone = listener is None
    listener = listener or listen(settings.host, settings.port)
    own = new_id("gtw")
    telemetry, meter = _metered(own)
    served = Gateway(settings, telemetry, meter, process_id=own)
    if served.new_api_key:
        typer.echo(f"Admin API key, shown only this once: {served.new_api_key}")
    with contextlib.suppress(OSError):  # a convenience for the CLI, and nothing else
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        (settings.data_dir / "gateway.url").write_text(f"{settings.base_url}\n")
    if alone:
        typer.echo(f"Gateway at {settings.base_url}, sources: {', '.join(served.live.sources) or 'none'}")
    uvloop.run(serve_gateway(served, listener))


def worker(
    path: Path_ = None,
    concurrency: Annotated[int | None, typer.Option(help="Runs at a time.")] = None,
    publish_only: Annotated[bool, typer.Option("--publish-only", hidden=True)] = False,
) -> None:
    """Run one worker: it publishes the functions found and runs what is due."""
    import uvloop

    from gateway.worker import run_worker

    override(path=path, concurrency=concurrency)
    settings = load()
    if publish_only:
        _publish(settings)
        return
    own, replaced = os.environ.get("TIDEGATE_PROCESS_ID") or new_id("wrk"), os.environ.get("TIDEGATE_REPLACES")
    telemetry, meter = _metered(own)
    _end_with_parent()
    uvloop.run(run_worker(settings, telemetry, meter, process_id=own, replaces=replaced))


def _publish(settings: Settings) -> None:
    """Publish the functions, and print what is broken, of the providers too, for the process that tells of it."""
    from gateway import codec
    from gateway.registry import load_providers
    from gateway.worker import publish

    with contextlib.redirect_stdout(sys.stderr):  # modules may print
        broken = [*load_providers(settings.providers).broken, *publish(settings)]
    typer.echo(codec.dumps(broken))


def migrate(quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing when there is nothing to do.")] = False) -> None:
    """Bring the database to this version's schema."""
    from gateway.store import schema

    before, after = schema.migrate(load().resolved_database_url)
    if before != after:
        typer.echo(f"Migrated the database from {before or 'nothing'} to {after}.")
    elif not quiet:
        typer.echo(f"The database is at schema {after}.")


def doctor(as_json: Json = False) -> None:
    """Look over settings, database, providers, functions and what waits; says what is wrong and what to do."""
    from gateway.cli.doctor import examine

    raise typer.Exit(examine(load(), as_json))


def log_facts(process_id: str | None = None) -> Telemetry:
    """A telemetry whose facts are written to the log; which modules are broken is told by whoever supervises this process."""
    from gateway.observe.logs import LogListener, configure
    from gateway.telemetry import Telemetry

    configure(process_id)
    return Telemetry(LogListener(untold=["module.broken"] if "TIDEGATE_PARENT_FD" in os.environ else []))


def _metered(process_id: str) -> tuple[Telemetry, Meter]:
    from gateway.clock import system_clock
    from gateway.observe.meter import Meter

    telemetry, meter = log_facts(process_id), Meter(system_clock)
    telemetry.listeners.append(meter)
    return telemetry, meter


def override(
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
