"""Real process trees for the tests and for scripts/crash: started as a user would, spoken to over HTTP, killed for real."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

ROOT = Path(__file__).parent.parent
SECRET = "whsec_test_not_a_real_secret"
API_KEY = "tg_test_not_a_real_key"


class _Client(threading.local, httpx.Client):
    """One for each thread: a pool may close a connection that is just given to another thread."""


# One client for many calls: each new one reads the certificates of the whole world. No connection outlives a call.
HTTP = _Client(verify=False, timeout=10, limits=httpx.Limits(max_keepalive_connections=0))

FUNCTIONS = """
import asyncio
from gateway import Context, function

@function(on="stripe/*")
async def quick(ctx: Context) -> int:
    return ctx.attempt

@function(on="stripe/charge.*")
async def slow(ctx: Context) -> int:
    await asyncio.sleep(0.05)
    return ctx.attempt
"""


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(true: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for a condition on another process; there is no other way to see into it."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"still not so after {seconds} s")
        time.sleep(0.02)


@dataclass
class Site:
    """One installation in a folder of its own: what it is started with, and what runs of it."""

    folder: Path
    database_url: str = ""
    functions: str = FUNCTIONS
    settings: dict[str, str] = field(default_factory=dict[str, str])
    port: int = field(default_factory=free_port)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list["subprocess.Popen[bytes]"])

    def __post_init__(self) -> None:
        (self.folder / "functions").mkdir(parents=True, exist_ok=True)
        (self.folder / "functions" / "crash_functions.py").write_text(self.functions)

    def start(self, *arguments: str, port: int | None = None) -> subprocess.Popen[bytes]:
        """Start `tidegate …` here."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
        environment |= {
            "TIDEGATE_PORT": str(port or self.port),
            "TIDEGATE_API_KEY": API_KEY,
            "STRIPE_WEBHOOK_SECRET": SECRET,
            "TIDEGATE_LEASE_SECONDS": "1",
            "TIDEGATE_SHUTDOWN_SECONDS": "5",
            "TIDEGATE_MASTER_KEY": "not-a-real-master-key",
            "PYTHONPATH": str(ROOT),
            **self.settings,
        }
        if self.database_url:
            environment["TIDEGATE_DATABASE_URL"] = self.database_url
        with (self.folder / f"{arguments[0]}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "gateway.cli", *arguments],
                cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `tidegate …` here to its end."""
        process = self.start(*arguments)
        code = process.wait(timeout=60)
        self.processes.remove(process)
        return subprocess.CompletedProcess(arguments, code, self.log(arguments[0]))

    def cli(self, *words: str, code: int = 0) -> str:
        """What `tidegate …` prints here when it ends as expected."""
        self.settings["TIDEGATE_URL"] = self.url()
        (self.folder / f"{words[0]}.log").unlink(missing_ok=True)
        done = self.run(*words)
        assert done.returncode == code, done.stdout
        return done.stdout

    def log(self, name: str) -> str:
        """What the processes of this name have written."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def url(self, port: int | None = None) -> str:
        """The gateway's base URL."""
        return f"http://127.0.0.1:{port or self.port}"

    def wait_ready(self, port: int | None = None) -> None:
        """Wait until the gateway answers and the functions are published."""

        def ready() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                return HTTP.get(self.url(port) + "/readyz").status_code == 200
            return False

        until(ready, 30)

    def get(self, path: str, port: int | None = None) -> dict:  # type: ignore[type-arg]
        """JSON of the API."""
        response = HTTP.get(self.url(port) + "/api/v1" + path, headers={"Authorization": f"Bearer {API_KEY}"})
        response.raise_for_status()
        return response.json()

    def call(
        self, method: str, path: str, body: object = None, *, key: str = API_KEY, port: int | None = None, **more: str
    ) -> httpx.Response:
        """Call the API; `more` are headers, `_` for `-`."""
        headers = {"Authorization": f"Bearer {key}", **{name.replace("_", "-"): value for name, value in more.items()}}
        return HTTP.request(method, self.url(port) + "/api/v1" + path, json=body, headers=headers)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """The SQLite database in somebody else's hands; afterwards the gateway has recovered."""
        other = sqlite3.connect(self.folder / "data" / "tidegate.db", isolation_level=None, check_same_thread=False)
        other.execute("begin immediate")
        try:
            yield
        finally:
            other.execute("rollback")
            other.close()
            self.wait_ready()

    def children(self) -> Sequence[tuple[int, str]]:
        """Process ids and names of what a supervisor keeps alive."""
        found: list[tuple[int, str]] = []
        for process in self.processes:
            with contextlib.suppress(OSError):
                for pid in children_of(process.pid):
                    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
                    found.append((pid, words[3] if len(words) > 3 else "?"))
        return found

    def writers(self) -> Sequence[int]:
        """Process ids of what gateways write by, started alone or by a supervisor."""
        pids = [process.pid for process in self.processes]
        below = [child for pid in pids for child in children_of(pid)]
        return [pid for pid in [*below, *(child for pid in below for child in children_of(pid))] if _is_writer(pid)]

    def stop(self) -> None:
        """End everything, asking first."""
        for process in self.processes:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.processes:
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()


def children_of(pid: int) -> Sequence[int]:
    """Process ids of a process's children; none when it is gone."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def resident_mb(pid: int) -> float:
    """A process's resident memory, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def _is_writer(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"gateway.store.writer" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def stripe_delivery(key: str, type_: str = "charge.succeeded", secret: str = SECRET, pad: int = 0) -> tuple[bytes, dict[str, str]]:
    """A signed Stripe delivery: body and headers."""
    now = int(time.time())
    payload = {"id": key, "object": "event", "type": type_, "created": now, "data": {"object": {"id": "in_1", "pad": "x" * pad}}}
    body = json.dumps(payload).encode()
    digest = hmac.new(secret.encode(), f"{now}.".encode() + body, hashlib.sha256).hexdigest()
    return body, {"Stripe-Signature": f"t={now},v1={digest}", "Content-Type": "application/json"}


def post(url: str, key: str, client: httpx.Client | None = None, **more: str) -> httpx.Response:
    """Post one signed Stripe delivery to a gateway."""
    body, headers = stripe_delivery(key, **more)  # type: ignore[arg-type]
    return (client or HTTP).post(f"{url}/webhooks/stripe", content=body, headers=headers, timeout=10)


@contextlib.contextmanager
def site(folder: Path, **options: object) -> Iterator[Site]:
    """A site that is stopped at the end."""
    made = Site(folder, **options)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.stop()
