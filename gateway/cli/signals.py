"""`tidegate signals`."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli.output import Json

app = typer.Typer(help="Signals that runs wait for.", no_args_is_help=True)


@app.command("send")
def send_signal(
    signal: Annotated[str, typer.Argument(help="What `step.wait_for_signal` was given.")],
    data: Annotated[str, typer.Option(help="JSON, which the step returns.")] = "null",
    as_json: Json = False,
) -> None:
    """Tell every run that waits for a signal."""
    from urllib.parse import quote

    import msgspec

    from gateway.cli.client import Client
    from gateway.cli.output import print_json
    from gateway.errors import InvalidRequest

    try:
        msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"--data is not JSON: {error}") from None
    found = Client().post(f"/signals/{quote(signal, safe='')}", msgspec.json.encode({"data": msgspec.Raw(data.encode())}))
    if as_json:
        print_json(found)
    elif found["runs"]:
        typer.echo(f"{found['runs']} waiting {'step' if found['runs'] == 1 else 'steps'} told")
    else:
        typer.echo("No run waits for this signal. Which runs wait: tidegate runs --status waiting")
