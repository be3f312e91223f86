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

from gateway.errors import EXIT_OPERATOR
from gateway.ids import new_id
from gateway.telemetry import Telemetry

STEADY_SECONDS = 5.0
MAX_BACKOFF_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Program:
    """One process to keep alive: its name in the logs, its arguments to `tidegate`, and descriptors it gets by variable.

    One that `stops_last` goes on until all others have ended.
    """

    name: str
    arguments: Sequence[str]
    descriptors: tuple[tuple[str, int], ...] = ()
    stops_last: bool = False


class Supervisor:
    """Keeps programs alive until `stop`. They end when this process does, however it ends: they hold a pipe's other end.

    A program that ends because it is set up wrongly is not started again: then all end, and `run` returns False.
    """

    def __init__(self, programs: Sequence[Program], telemetry: Telemetry, stop_seconds: float) -> None:
        self._programs = programs
        self._telemetry = telemetry
        self._stop_seconds = stop_seconds
        self._stopping = asyncio.Event()
        self._others_ended = asyncio.Event()
        self._left = sum(not program.stops_last for program in programs)
        self._processes: list[asyncio.subprocess.Process] = []
        self._restarting: set[int] = set()
        self._good = True

    async def run(self) -> bool:
        """Run until `stop`; whether every program was set up well."""
        read_end, write_end = os.pipe()
        if not self._left:
            self._others_ended.set()
        try:
            await asyncio.gather(*(self._keep(program, read_end) for program in self._programs))
        finally:
            os.close(read_end)
            os.close(write_end)
        return self._good

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
        try:
            await self._run_again_and_again(program, parent_fd)
        finally:
            self._left -= not program.stops_last
            if not self._left:
                self._others_ended.set()

    async def _run_again_and_again(self, program: Program, parent_fd: int) -> None:
        failures, last = 0, ""
        while not self._stopping.is_set():
            started, own = time.monotonic(), new_id("wrk")
            process = await self._start(program, parent_fd, {"TIDEGATE_PROCESS_ID": own, "TIDEGATE_REPLACES": last})
            self._processes.append(process)
            code = await self._wait(process, program)
            self._processes.remove(process)
            if self._stopping.is_set():
                return
            if code == EXIT_OPERATOR:
                self._good = False
                self._stopping.set()
                return
            if process.pid in self._restarting:
                self._restarting.remove(process.pid)
                continue
            last = own
            failures = 0 if time.monotonic() - started > STEADY_SECONDS else failures + 1
            delay = min(0.1 * 2**failures, MAX_BACKOFF_SECONDS)
            self._telemetry.emit("process.exited", process=program.name, code=code, restart_seconds=delay)
            await _first(self._stopping.wait(), asyncio.sleep(delay))

    async def _start(self, program: Program, parent_fd: int, more: dict[str, str]) -> asyncio.subprocess.Process:
        told = {variable: str(descriptor) for variable, descriptor in program.descriptors}
        return await asyncio.create_subprocess_exec(
            *command(program.arguments),
            pass_fds=[parent_fd, *(descriptor for _, descriptor in program.descriptors)],
            env={**os.environ, "TIDEGATE_PARENT_FD": str(parent_fd), **told, **{name: value for name, value in more.items() if value}},
            start_new_session=True,
        )

    async def _wait(self, process: asyncio.subprocess.Process, program: Program) -> int | None:
        await _first(process.wait(), self._stopping.wait())
        if process.returncode is None and program.stops_last:
            await _first(process.wait(), self._others_ended.wait())
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
