"""The command line."""

import typer

from gateway.cli import processes


def main() -> None:
    """Run the CLI."""
    app = typer.Typer(no_args_is_help=True, add_completion=False)
    processes.register(app)
    app()
