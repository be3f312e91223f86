"""What `tidegate serve` says once it is ready."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import typer

from gateway.cli.client import own_key
from gateway.cli.functions import triggers
from gateway.settings import Settings, secret_variable

WAIT_SECONDS = 30.0
MOST_IDLE = 5


async def print_banner(settings: Settings) -> None:
    """Wait until the gateway answers, then print where everything is and the next thing to type."""
    headers = {"Authorization": f"Bearer {own_key(settings)}"}
    deadline = time.monotonic() + WAIT_SECONDS
    async with httpx.AsyncClient(base_url=settings.base_url, headers=headers, timeout=2) as client:
        while time.monotonic() < deadline:
            try:
                ready = (await client.get("/readyz")).json()
                sources = [row for row in (await client.get("/api/v1/sources")).json()["data"] if not row["left_out"]]
                functions = (await client.get("/api/v1/functions")).json()["data"]
                providers = [row["name"] for row in (await client.get("/api/v1/providers")).json()["data"]]
                break
            except (httpx.HTTPError, ValueError, KeyError):
                await asyncio.sleep(0.05)
        else:
            return
    served = {source["provider"] for source in sources}
    idle = [name for name in providers if name not in served]
    for line in _lines(settings, ready, sources, idle, functions):
        typer.echo(line)


def _lines(
    settings: Settings, ready: dict[str, Any], sources: list[dict[str, Any]], idle: list[str], functions: list[dict[str, Any]]
) -> list[str]:
    out = ["", f"Tidegate is ready at {settings.base_url}", ""]
    out += [f"  source    {source['name']:<24} {source['url']}   ({source['origin']})" for source in sources]
    if not sources:
        out.append(f"  No sources yet. Make one in another terminal: {_command()} sources add stripe")
    else:
        out += [f"  provider  {name:<24} no source: set {secret_variable(name)} if you want one" for name in idle[:MOST_IDLE]]
    out += [f"  function  {found['id']:<24} {'on ' if found['on'] else ''}{triggers(found)}   ({found['origin']})" for found in functions]
    if not functions:
        out.append("  No functions yet. Write one: functions/mine.py")
    out += [f"  LEFT OUT  {found['file']}: {found['message']}" for found in ready.get("broken", [])]
    if sources:
        out += ["", f"Next, in another terminal:  {_command()} trigger {sources[0]['name']} {_event(sources[0], functions)}"]
    return [*out, ""]


def _event(source: dict[str, Any], functions: list[dict[str, Any]]) -> str:
    """A sample to try the source with: one that a function listens to, where there is one."""
    samples: list[str] = source["samples"]
    heard = [name for found in functions for name in found["on"]]
    listened = [sample for sample in samples if f"{source['provider']}/{sample}" in heard]
    return next(iter([*listened, *samples]), "TYPE")


def _command() -> str:
    """How `tidegate` is typed here: by its path, where the shell would not find it."""
    here = Path(sys.executable).parent / "tidegate"
    found = shutil.which("tidegate")
    if found is not None and Path(found).resolve() == here.resolve():
        return "tidegate"
    return os.path.relpath(here) if here.exists() else "tidegate"
