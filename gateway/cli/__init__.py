"""The command line: one file for each noun. Commands that look at things are clients of the API."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from gateway.cli import events, functions, init, keys, processes, providers, requests, runs, send, serve, signals, sources, trigger
from gateway.errors import EXIT_OPERATOR, OperatorError, TidegateError, Unavailable


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"tidegate {version('tidegate')}")
        raise typer.Exit


def root(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False) -> None:
    """Tidegate: webhooks in, durable runs out."""


def application() -> typer.Typer:
    """Every command."""
    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    app.callback()(root)
    for command in (init.init, serve.serve, serve.dev, processes.gateway, processes.worker, processes.migrate, processes.doctor):
        app.command()(command)
    app.command("send")(send.send)
    app.command("trigger")(trigger.trigger)
    app.add_typer(events.app, name="events")
    app.add_typer(runs.app, name="runs")
    app.add_typer(signals.app, name="signals")
    app.add_typer(requests.app, name="requests")
    app.add_typer(functions.app, name="functions")
    app.add_typer(sources.app, name="sources")
    app.add_typer(providers.app, name="providers")
    app.add_typer(keys.app, name="keys")
    return app


def main() -> None:
    """Run the CLI; an error that was foreseen is one line, and exit code 1, or 78 where Tidegate is set up wrongly."""
    sys.path.insert(0, "")
    try:
        application()()
    except TidegateError as error:
        typer.echo(f"error: {error}" + (f"\n{error.remedy}" if isinstance(error, Unavailable) else ""), err=True)
        sys.exit(EXIT_OPERATOR if isinstance(error, OperatorError) else 1)
