"""The process tree of `tidegate serve`: starts processes, restarts those that end, with backoff, and stops them in order."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.telemetry import Telemetry

STEADY_SECONDS = 5.0
MAX_BACKOFF_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Program:
    """One process to keep alive: its name in the logs and its arguments to `tidegate`."""

    name: str
    arguments: Sequence[str]


class Supervisor:
    """Keeps programs alive until `stop`. They end when this process does, however it ends: they hold a pipe's other end."""

    def __init__(self, programs: Sequence[Program], telemetry: Telemetry, stop_seconds: float) -> None:
        self._programs = programs
        self._telemetry = telemetry
        self._stop_seconds = stop_seconds
        self._stopping = asyncio.Event()
        self._processes: list[asyncio.subprocess.Process] = []
        self._restarting: set[int] = set()

    async def run(self) -> None:
        """Run until `stop`."""
        read_end, write_end = os.pipe()
        try:
            await asyncio.gather(*(self._keep(program, read_end) for program in self._programs))
        finally:
            os.close(read_end)
            os.close(write_end)

    def stop(self) -> None:
        """Stop every program, giving each time to end in good order."""
        self._stopping.set()

    def restart(self) -> None:
        """End every program in good order and start it anew."""
        for process in self._processes:
            if process.returncode is None:
                self._restarting.add(process.pid)
                process.send_signal(signal.SIGTERM)

    async def _keep(self, program: Program, parent_fd: int) -> None:
        failures = 0
        while not self._stopping.is_set():
            started = time.monotonic()
            process = await asyncio.create_subprocess_exec(
                *command(program.arguments),
                pass_fds=[parent_fd],
                env={**os.environ, "TIDEGATE_PARENT_FD": str(parent_fd)},
                start_new_session=True,
            )
            self._processes.append(process)
            code = await self._wait(process)
            self._processes.remove(process)
            if self._stopping.is_set():
                return
            if process.pid in self._restarting:
                self._restarting.remove(process.pid)
                continue
            failures = 0 if time.monotonic() - started > STEADY_SECONDS else failures + 1
            delay = min(0.1 * 2**failures, MAX_BACKOFF_SECONDS)
            self._telemetry.emit("process.exited", process=program.name, code=code, restart_seconds=delay)
            await _first(self._stopping.wait(), asyncio.sleep(delay))

    async def _wait(self, process: asyncio.subprocess.Process) -> int | None:
        await _first(process.wait(), self._stopping.wait())
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await _first(process.wait(), asyncio.sleep(self._stop_seconds))
        if process.returncode is None:
            process.kill()
            await process.wait()
        return process.returncode


def command(arguments: Sequence[str]) -> list[str]:
    """How to start `tidegate` with these arguments under this interpreter."""
    return [sys.executable, "-m", "gateway.cli", *arguments]


async def _first(*waits: Coroutine[Any, Any, Any]) -> None:
    tasks = [asyncio.create_task(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
