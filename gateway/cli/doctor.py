"""`tidegate doctor`: looks at everything without a running gateway."""

from __future__ import annotations

import typer

from gateway.errors import TidegateError
from gateway.settings import Settings


def examine(settings: Settings) -> int:
    """Print a line for each thing looked at; returns 1 when something is wrong."""
    from gateway.clock import system_clock
    from gateway.registry import load_functions, load_providers
    from gateway.store import schema
    from gateway.store.cipher import load_cipher
    from gateway.store.database import open_database
    from gateway.store.reads import Reads

    wrong = 0

    def say(good: bool, text: str) -> None:
        nonlocal wrong
        wrong += not good
        typer.echo(f"{'ok   ' if good else 'WRONG'}  {text}")

    providers = load_providers(settings.providers)
    functions = load_functions(settings.functions)
    say(True, f"{len(providers.providers)} providers, {len(functions.functions)} functions")
    for found in [*providers.broken, *functions.broken]:
        say(False, f"{found.file}: {found.message}")
    for source in settings.sources:
        say(
            source.provider in providers.providers,
            f"source {source.name} ({source.origin}), provider {source.provider}",
        )
    try:
        schema.check(settings.resolved_database_url)
        load_cipher(settings.master_key, settings.data_dir)
        database = open_database(settings.resolved_database_url)
        backlog = Reads(database).backlog(system_clock())
        say(True, f"database reached; {backlog['due']} runs due")
        say(not backlog["held"], f"{backlog['held']} runs wait for a function that nobody offers")
        database.close()
    except TidegateError as error:
        say(False, str(error))
    return 1 if wrong else 0
