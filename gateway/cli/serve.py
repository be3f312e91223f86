"""`tidegate serve` and `tidegate dev`: the whole of Tidegate as one supervised process tree."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Coroutine, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from gateway.cli.processes import Path_, log_facts, override
from gateway.engine.supervisor import Program, Supervisor, command
from gateway.errors import EXIT_OPERATOR, Unavailable
from gateway.registry import Broken, shown
from gateway.settings import Settings, load
from gateway.telemetry import Telemetry

PUBLISH_SECONDS = 30
LOOK_SECONDS = 0.5


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes.")] = None,
    path: Path_ = None,
) -> None:
    """Run everything: a gateway and its workers, supervised; an SQLite database is made and migrated by itself."""
    override(host=host, port=port, workers=workers, path=path)
    _supervise(reload=False)


def dev(
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    path: Path_ = None,
) -> None:
    """As `serve`, for development: starts anew when a function or provider changes; on loopback, where the API needs no key."""
    os.environ["TIDEGATE_OPEN_API"] = "1"
    override(port=port, path=path)
    _supervise(reload=True)


def _supervise(*, reload: bool) -> None:
    from gateway.store.cipher import load_cipher  # 6 MB that a worker goes without

    settings, telemetry = load(), log_facts()
    load_cipher(settings.master_key, settings.data_dir, make=True)
    # User code, and what a migration needs, is never loaded into the process that is to outlive all others.
    if settings.resolved_database_url.startswith("sqlite"):
        _apart(["migrate", "--quiet"])
    else:
        _check_schema(settings)
    broken = _publish(telemetry, [])
    # The gateway gets a socket that is open already: a port that is taken ends the start, and while a gateway is started
    # again callers wait for it instead of being turned away.
    from gateway.api.listener import listen

    listener = listen(settings.host, settings.port)
    gateway = Program("gateway", ["gateway"], (("TIDEGATE_LISTEN_FD", listener.fileno()),), stops_last=True)
    workers = [Program(f"worker {n}", ["worker"]) for n in range(1, settings.workers + 1)]
    supervisor = Supervisor([gateway, *workers], telemetry, settings.shutdown_seconds + 5)
    reloading = _reload(settings, supervisor, telemetry, broken) if reload else None
    if not asyncio.run(_run(supervisor, settings, reloading)):
        raise typer.Exit(EXIT_OPERATOR)


async def _run(supervisor: Supervisor, settings: Settings, reloading: Coroutine[Any, Any, None] | None) -> bool:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.stop)
    from gateway.cli.banner import print_banner

    tasks = [asyncio.create_task(print_banner(settings))]
    if reloading is not None:
        tasks.append(asyncio.create_task(reloading))
    good = await supervisor.run()
    for task in tasks:
        task.cancel()
    return good


async def _reload(settings: Settings, supervisor: Supervisor, telemetry: Telemetry, broken: list[Broken]) -> None:
    """Publish and start anew whenever a Python file of a provider or function changes; say what is left out still."""
    async for changed in _changes([Path("functions"), Path("providers"), *settings.functions, *settings.providers]):
        typer.echo(f"{changed} changed; starting anew")
        broken = await asyncio.to_thread(_publish, telemetry, broken)
        for found in broken:
            typer.echo(f"  LEFT OUT  {shown(found.file)}: {found.message}")
        supervisor.restart()


async def _changes(places: Sequence[Path]) -> AsyncIterator[str]:
    """A Python file in these folders that has changed, come or gone, whenever one has; a folder may be made later."""
    before = _python_files(places)
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        now = await asyncio.to_thread(_python_files, places)
        if now != before:
            yield sorted(path.name for path, _ in now ^ before)[0]
        before = now


def _python_files(places: Sequence[Path]) -> set[tuple[Path, int]]:
    """Every Python file below these folders, and when it was written."""
    found: set[tuple[Path, int]] = set()
    for place in places:
        for path in place.rglob("*.py"):
            with contextlib.suppress(OSError):  # it may be gone by now
                found.add((path, path.stat().st_mtime_ns))
    return found


def _publish(telemetry: Telemetry, told: list[Broken]) -> list[Broken]:
    """Publish the functions before the gateway is ready, so that its first event finds them; what is broken now.

    That is told here, once, and not by each process that comes upon it; nor again, as long as it stays as it was `told`.
    """
    try:
        done = subprocess.run(command(["worker", "--publish-only"]), check=False, stdout=subprocess.PIPE, timeout=PUBLISH_SECONDS)  # noqa: S603
    except subprocess.TimeoutExpired:
        typer.echo(f"The functions took more than {PUBLISH_SECONDS} s to import; the workers publish them when they are done.", err=True)
        return told
    try:
        broken = msgspec.json.decode(done.stdout.rstrip().rpartition(b"\n")[2], type=list[Broken])
    except msgspec.DecodeError:  # it has ended before it was done, and has said why
        return told
    for found in broken:
        if found not in told:
            telemetry.emit("module.broken", file=found.file, error=found.message, traceback=found.traceback)
    return broken


def _check_schema(settings: Settings) -> None:
    """Refuse a schema that is not the one this version knows, in one line; a database that is away is the gateway's to tell."""
    from gateway.store import schema

    with contextlib.suppress(Unavailable):
        schema.check(settings.resolved_database_url)


def _apart(arguments: list[str]) -> None:
    code = subprocess.run(command(arguments), check=False).returncode  # noqa: S603
    if code:
        raise typer.Exit(code)
