"""`tidegate functions`."""

from __future__ import annotations

from gateway.cli.output import Json


def functions(as_json: Json = False) -> None:
    """List the functions that are offered."""
    from gateway.cli.client import Client
    from gateway.cli.output import print_json, print_list

    columns = {"ID": "id", "ON": "on", "IF": "if", "RETRIES": "retries", "TIMEOUT MS": "timeout_ms", "FROM": "origin"}
    found = Client().get("/functions")
    if as_json:
        print_json(found)
    else:
        print_list(found, columns, "No functions yet. Write one: functions/mine.py")
