"""What good webhooks lose to others' bad behaviour: to a flood of forged ones as fast as they are, to senders that dribble and
connections that say nothing; and what huge bodies do to the gateway's memory.

Rounds with and without it take turns, so that a machine whose speed changes changes both. The bad ones have a process of
their own, and on a machine with few cores take from everybody there, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator

import uvloop

from benchmarks.ingest import rate
from benchmarks.load import Connection, Load, Run, drive, requests
from benchmarks.stage import databases, show, site, start_all, stop_worker
from tests.processes import ROOT, Site, resident_mb, until

PATH = "/webhooks/stripe"
ROUNDS = 6
FORGERS = 64
SLOW = 200
IDLE = 2000
HUGE = 16
HUGE_BYTES = 30 << 20
HUGE_SECONDS = 10


def main(count: int = 30_000) -> None:
    """Both databases."""
    with databases() as both:
        for name, url in both:
            with site(url) as made:
                start_all(made)
                stop_worker(made)
                drive(made.port, requests(2000, PATH, "warm"))
                before = resident(made)
                _beside(f"{name}: beside as many forged ones", made, "forged", count)
                _beside(f"{name}: beside {SLOW} slow senders, {IDLE} idle connections", made, "slow", count)
                _huge(name, made, before)


def _beside(name: str, made: Site, kind: str, count: int) -> None:
    """Good webhooks alone and beside bad ones, in turns."""
    alone: list[Load] = []
    beside: list[Load] = []
    for n in range(ROUNDS):
        alone.append(drive(made.port, requests(count // ROUNDS, PATH, f"{kind}-alone-{n}")))
        queue = requests(count // ROUNDS, PATH, f"{kind}-{n}")
        with _bad(kind, made.port, rate(alone)):
            beside.append(drive(made.port, queue))
    refused = sum(load.refused for load in [*alone, *beside])
    show(f"{name}: webhooks accepted", rate(beside), "/s", f"{rate(beside) / rate(alone):.2f} of {rate(alone):,.1f} alone")
    if refused:
        print(f"{refused} GOOD REQUESTS WERE REFUSED:", made.log("gateway")[-2000:])


def _huge(name: str, made: Site, before: float) -> None:
    """Bodies above the limit, said to be so or found to be so, from HUGE senders at once."""
    after, most = resident(made), 0.0
    with _bad("huge", made.port, 0):
        ends = time.monotonic() + HUGE_SECONDS
        while time.monotonic() < ends:
            most = max(most, resident(made))
            time.sleep(0.05)
    until(lambda: made.get("/events?limit=1")["data"])
    note = f"{before:.0f} before all this, {most:.0f} at most meanwhile, {resident(made):.0f} behind it"
    show(f"{name}: gateway's memory before {HUGE} senders of huge bodies", after, "MB", note)


def resident(made: Site) -> float:
    """The gateway's resident memory, in MB."""
    return resident_mb(made.processes[0].pid)


@contextlib.contextmanager
def _bad(kind: str, port: int, per_second: float) -> Iterator[None]:
    """Bad senders in a process of their own, at work."""
    command = [sys.executable, "-m", "benchmarks.overload", kind, str(port), str(per_second)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def _forged(port: int, per_second: float) -> None:
    """Webhooks with a bad signature, at a rate, for ever."""
    made = [_spoilt(request) for request in requests(2000, PATH, "forged")]

    class Forger(Run):
        def give(self, connection: Connection) -> None:
            self.queue = self.queue or made[::-1]
            super().give(connection)

    run = Forger(made, per_second)
    run.total = sys.maxsize
    for _ in range(FORGERS):
        await asyncio.get_running_loop().create_connection(lambda: Connection(run), "127.0.0.1", port)
    print("at work", flush=True)
    await run.done.wait()


def _spoilt(request: bytes) -> bytes:
    """A request with another first digit in its signature."""
    before, mark, digits = request.partition(b"v1=")
    return before + mark + (b"1" if digits[:1] == b"0" else b"0") + digits[1:]


async def _slow(port: int, _: float) -> None:
    """SLOW senders of a byte at a time, and IDLE connections; whoever is thrown out comes again."""
    [request] = requests(1, PATH, "slow")
    head, _, body = request.partition(b"\r\n\r\n")
    here = asyncio.Semaphore(0)

    async def dribble() -> None:
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                here.release()
                writer.write(head + b"\r\n\r\n")
                for n in range(len(body) - 1):
                    writer.write(body[n : n + 1])
                    await writer.drain()
                    await asyncio.sleep(0.1)

    async def idle() -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, _ = await asyncio.open_connection("127.0.0.1", port)
                here.release()
                await reader.read()

    tasks = [asyncio.create_task(work()) for work, count in ((dribble, SLOW), (idle, IDLE)) for _ in range(count)]
    for _ in tasks:
        await here.acquire()
    print("at work", flush=True)
    await asyncio.gather(*tasks)


async def _huge_bodies(port: int, _: float) -> None:
    """HUGE senders of too much; every other one does not say how much it will be."""
    part = b"100000\r\n" + b"x" * (1 << 20) + b"\r\n"

    async def send(says: bool) -> None:
        size = b"Content-Length: %d" % HUGE_BYTES if says else b"Transfer-Encoding: chunked"
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"POST /webhooks/stripe HTTP/1.1\r\nHost: localhost\r\n" + size + b"\r\n\r\n")
                for _ in range(HUGE_BYTES >> 20):
                    writer.write(part[8:-2] if says else part)
                    await writer.drain()
                await reader.read()
            await asyncio.sleep(0.01)

    print("at work", flush=True)
    await asyncio.gather(*(send(n % 2 == 0) for n in range(HUGE)))


if __name__ == "__main__":
    kinds = {"forged": _forged, "slow": _slow, "huge": _huge_bodies}
    uvloop.run(kinds[sys.argv[1]](int(sys.argv[2]), float(sys.argv[3])))
