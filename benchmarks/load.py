"""A load generator: signed Stripe deliveries of about 1.7 kB over kept-alive connections, on raw asyncio protocols.

Requests are built before the clock starts, so that the generator costs what a socket costs.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Generator
from dataclasses import dataclass

import uvloop

SECRET = "whsec_test_not_a_real_secret"
CONNECTIONS = 64


@dataclass
class Load:
    """What a load gave: requests a second, and latencies in milliseconds."""

    per_second: float
    median_ms: float
    p99_ms: float
    refused: int


def requests(count: int, path: str, prefix: str, *, scattered: bool = False) -> list[bytes]:
    """`count` HTTP requests, each with an id of its own, signed; ids count up, or have nothing to do with one another."""
    now, made = int(time.time()), list[bytes]()
    pad = "x" * 1500
    for n in range(count):
        event = {
            "id": f"evt_{secrets.token_hex(12) if scattered else f'{prefix}_{n}'}",
            "object": "event",
            "type": "charge.succeeded",
            "created": now,
            "livemode": False,
        }
        body = json.dumps({**event, "data": {"object": {"id": "in_1", "pad": pad}}}).encode()
        digest = hmac.new(SECRET.encode(), b"%d." % now + body, hashlib.sha256).hexdigest()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Stripe-Signature: t={now},v1={digest}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        made.append(head.encode() + body)
    return made


class Connection(asyncio.Protocol):
    """One connection: sends the next request when the last one was answered, or when its turn has come."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.next()

    def next(self) -> None:
        self.run.give(self)

    def send(self, request: bytes) -> None:
        self.started = time.perf_counter()
        self.transport.write(request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.buffer[:end].lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(self.buffer) < end + 4 + length:
            return
        self.run.answered(time.perf_counter() - self.started, head[9:10] == b"2")
        self.buffer = b""
        self.next()

    def connection_lost(self, exc: Exception | None) -> None:
        self.run.lost()


class Run:
    """A load over CONNECTIONS connections; `rate` spaces the requests out, without it they go as fast as they can."""

    def __init__(self, queue: list[bytes], rate: float | None) -> None:
        self.queue = queue[::-1]
        self.total = len(queue)
        self.rate = rate
        self.sent = 0
        self.latencies: list[float] = []
        self.refused = 0
        self.done = asyncio.Event()
        self.started = time.perf_counter()

    def give(self, connection: Connection) -> None:
        if not self.queue:
            return
        request = self.queue.pop()
        self.sent += 1
        if self.rate is None:
            connection.send(request)
            return
        delay = self.started + self.sent / self.rate - time.perf_counter()
        asyncio.get_running_loop().call_later(max(delay, 0), connection.send, request)

    def answered(self, seconds: float, good: bool) -> None:
        self.latencies.append(seconds)
        self.refused += not good
        if len(self.latencies) == self.total:
            self.done.set()

    def lost(self) -> None:
        if not self.done.is_set():
            self.done.set()


async def _drive(port: int, queue: list[bytes], rate: float | None) -> Load:
    run, loop = Run(queue, rate), asyncio.get_running_loop()
    for _ in range(CONNECTIONS):
        await loop.create_connection(lambda: Connection(run), "127.0.0.1", port)
    await run.done.wait()
    elapsed = time.perf_counter() - run.started
    ordered = sorted(run.latencies)
    n = len(ordered)
    return Load(n / elapsed, ordered[n // 2] * 1000, ordered[int(n * 0.99)] * 1000, run.refused + run.total - n)


def drive(port: int, queue: list[bytes], rate: float | None = None) -> Load:
    """Send every request once. At full speed it interrupts nobody: senders are elsewhere, and what is measured needs both cores."""
    with _patient() if rate is None else contextlib.nullcontext():
        return uvloop.run(_drive(port, queue, rate))


@contextlib.contextmanager
def _patient() -> Generator[None]:
    """Without preempting whoever runs when this process is woken, where the system can do that."""
    if not hasattr(os, "SCHED_BATCH"):
        yield
        return
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
