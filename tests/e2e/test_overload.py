"""Bad senders have bounds, and good ones pass."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import threading
import time

import httpx
import pytest

from tests.processes import API_KEY, post, resident_mb, site, stripe_delivery


def test_g10_bodies_that_never_end_fill_no_memory_and_good_webhooks_pass(tmp_path):
    with site(tmp_path, settings={"TIDEGATE_MAX_BODY_BYTES": "100000"}) as made:
        made.run("migrate")
        made.start("gateway")
        made.wait_ready()
        senders = [socket.create_connection(("127.0.0.1", made.port)) for _ in range(5)]
        for sender in senders:
            sender.settimeout(10)
            sender.sendall(b"POST /webhooks/stripe HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
            sender.sendall(b"15F90\r\n" + b"x" * 90_000 + b"\r\n")  # and the rest does not come
        answers = []
        for sender in senders:
            sender.settimeout(1)
            try:
                answers.append(sender.recv(4096))
            except TimeoutError:
                continue  # it is waited for
        assert len(answers) == 1
        assert answers[0].startswith(b"HTTP/1.1 503")
        assert b'"overloaded"' in answers[0]
        assert b"retry-after: 1" in answers[0]
        assert post(made.url(), "evt_good").status_code == 200
        for sender in senders:
            sender.close()


def test_g10_bodies_that_were_refused_or_lost_are_let_go_at_once(tmp_path):
    with site(tmp_path) as made:
        made.run("migrate")
        gateway = made.start("gateway")
        made.wait_ready()
        before = resident_mb(gateway.pid)
        for n in range(30):
            with socket.create_connection(("127.0.0.1", made.port)) as sender, contextlib.suppress(ConnectionError):
                sender.sendall(b"POST /webhooks/stripe HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
                sender.sendall(b"1400000\r\n" + b"x" * (20 << 20) + b"\r\n")
                if n % 2:  # too large now
                    sender.sendall(b"A00000\r\n" + b"x" * (10 << 20) + b"\r\n")
                    assert sender.recv(4096).startswith(b"HTTP/1.1 413 ")
        assert post(made.url(), "evt_good").status_code == 200
        assert resident_mb(gateway.pid) < before + 150, "fifteen bodies are 300 MB"


HUGE_HEAD = b"POST /webhooks/stripe HTTP/1.1\r\nHost: x\r\nX-Pad: " + b"x" * 60_000 + b"\r\nContent-Length: 0\r\n\r\n"


def test_g10_what_is_pipelined_fills_no_memory_and_is_let_go_with_its_connection(tmp_path):
    with site(tmp_path) as made:
        made.run("migrate")
        gateway = made.start("gateway")
        made.wait_ready()
        before = resident_mb(gateway.pid)
        for n in range(60):
            with (
                socket.create_connection(("127.0.0.1", made.port), timeout=0.2) as sender,
                contextlib.suppress(ConnectionError, TimeoutError),
            ):
                sender.sendall(HUGE_HEAD * 200)
                if n % 2:
                    sender.recv(4096)
        assert post(made.url(), "evt_good").status_code == 200
        assert resident_mb(gateway.pid) < before + 100, "60 connections with 100 requests each are 360 MB"


def test_who_pipelines_and_reads_late_gets_every_answer(tmp_path):
    with site(tmp_path, settings={"TIDEGATE_QUARANTINE_PER_MINUTE": "1000000"}) as made:
        made.run("migrate")
        made.start("gateway")
        made.wait_ready()
        # Not more of them in one read than may be pipelined.
        bad = b"POST /webhooks/stripe HTTP/1.1\r\nHost: x\r\nX-Pad: " + b"x" * 2700 + b"\r\nContent-Length: 0\r\n\r\n"
        with socket.socket() as sender:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sender.settimeout(8)
            sender.connect(("127.0.0.1", made.port))
            asked, got = 14_000, 0
            writing = threading.Thread(target=sender.sendall, args=[bad * asked], daemon=True)
            writing.start()
            time.sleep(5)  # answers pile up, until the gateway waits for who reads them
            rest = b""
            while got < asked:
                data = rest + sender.recv(1 << 20)
                assert data != rest, got
                got += data.count(b"HTTP/1.1 401 ")
                rest = data[data.rfind(b"HTTP/1.1 401 ") + 1 :][-12:]
            writing.join()


def test_g10_who_never_reads_is_not_read_from_and_is_ended(tight):
    [gateway] = tight.processes
    body, headers = stripe_delivery("evt_again_and_again")
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    sent = f"POST /webhooks/stripe HTTP/1.1\r\nHost: x\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body
    with socket.socket() as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sender.connect(("127.0.0.1", tight.port))
        before = resident_mb(gateway.pid)
        with pytest.raises(ConnectionError):
            send_on(sender, sent * 20)
        assert resident_mb(gateway.pid) < before + 50


def test_g10_bodies_that_could_not_be_kept_are_let_go_at_once(tmp_path):
    with site(tmp_path) as made:
        made.run("migrate")
        gateway = made.start("gateway")
        made.wait_ready()
        post(made.url(), "evt_before")
        deliveries = [stripe_delivery(f"evt_{n}", pad=10 << 20) for n in range(4)]
        before = resident_mb(gateway.pid)
        with (
            contextlib.closing(sqlite3.connect(tmp_path / "data" / "tidegate.db", isolation_level=None)) as holder,
            httpx.Client() as client,
        ):
            holder.execute("begin immediate")
            for body, headers in deliveries * 8:
                url = f"{made.url()}/webhooks/stripe"
                assert client.post(url, content=body, headers=headers, timeout=20).status_code == 503
        assert resident_mb(gateway.pid) < before + 150, "32 bodies are 320 MB"


def test_g10_a_flood_of_forgeries_is_answered_late_and_good_webhooks_are_not(tmp_path):
    with site(tmp_path, settings={"TIDEGATE_QUARANTINE_PER_MINUTE": "2"}) as made:
        made.run("migrate")
        made.start("gateway")
        made.wait_ready()
        body, headers = stripe_delivery("evt_forged", secret="whsec_another")
        answered: list[tuple[int, float]] = []
        with httpx.Client() as client:
            for _ in range(4):
                started = time.monotonic()
                response = client.post(f"{made.url()}/webhooks/stripe", content=body, headers=headers)
                answered.append((response.status_code, time.monotonic() - started))
            assert [status for status, _ in answered] == [401] * 4
            assert min(seconds for _, seconds in answered[2:]) >= 0.1
            assert post(made.url(), "evt_good", client).status_code == 200
        assert len(made.get("/requests?status=quarantined")["data"]) == 2


ENDLESS = {
    "many": b"aaaaaaaa: b\r\n" * 5000,
    "one": b"a" * 100_000,
    "an extension of a chunk": b"5;" + b"a" * 100_000,
}


def send_on(sender: socket.socket, data: bytes) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        sender.sendall(data)


@pytest.mark.parametrize("what", ENDLESS)
@pytest.mark.parametrize("path", ["/nowhere", "/webhooks/stripe"])
def test_g10_trailers_that_never_end_are_ended(tight, what, path):
    last_chunk = b"" if what.startswith("an ext") else b"0\r\na: " if what == "one" else b"0\r\n"
    with socket.create_connection(("127.0.0.1", tight.port), timeout=5) as sender:
        sender.sendall(b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % path.encode() + last_chunk)
        with pytest.raises(ConnectionError):
            send_on(sender, ENDLESS[what] * 500)


def trailed(path: str, body: bytes, trailers: dict[str, str]) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n".encode()
    return head + body + b"\r\n0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in trailers.items()).encode() + b"\r\n"


def test_g7_a_signature_or_a_key_after_the_body_counts_for_nothing(tight):
    body, headers = stripe_delivery("evt_trailed")
    with socket.create_connection(("127.0.0.1", tight.port), timeout=5) as sender:
        for path, trailers in (
            ("/webhooks/stripe", headers),
            ("/api/v1/events", {"Authorization": f"Bearer {API_KEY}"}),
            ("/webhooks/stripe", headers),
        ):
            sender.sendall(trailed(path, body, trailers))
            answer = sender.recv(4096)
            assert answer.startswith(b"HTTP/1.1 401 "), answer
        sender.sendall(f"GET /api/v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {API_KEY}\r\n\r\n".encode())
        assert sender.recv(4096).startswith(b"HTTP/1.1 200 ")


BODY_TO_COME = b"Host: x\r\nContent-Length: 1000\r\n\r\n"
WITH_KEY = f"Authorization: Bearer {API_KEY}\r\n".encode()
NEVER_DONE = {
    "nothing": b"",
    "a head that stops": b"GET / HT",
    "empty lines": b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n\r\n",
    "no body to nowhere": b"POST /nowhere HTTP/1.1\r\n" + BODY_TO_COME,
    "a byte to nowhere": b"POST /nowhere HTTP/1.1\r\n" + BODY_TO_COME + b"x",
    "no body of a webhook": b"POST /webhooks/stripe HTTP/1.1\r\n" + BODY_TO_COME,
    "a byte of a webhook": b"POST /webhooks/stripe HTTP/1.1\r\n" + BODY_TO_COME + b"x",
    "a byte of a call without a key": b"POST /api/v1/events HTTP/1.1\r\n" + BODY_TO_COME + b"x",
    "no body of a call": b"POST /api/v1/events HTTP/1.1\r\n" + WITH_KEY + BODY_TO_COME,
    "a byte of a call": b"POST /api/v1/events HTTP/1.1\r\n" + WITH_KEY + BODY_TO_COME + b"x",
    "an upgrade": b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\nxx",
    "another request, half": b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /hea",
}


def test_g10_no_connection_lives_on_what_does_not_come(tight):
    before = len(tight.log("gateway"))
    connections = {what: socket.create_connection(("127.0.0.1", tight.port), timeout=6) for what in NEVER_DONE}
    for what, connection in connections.items():
        connection.sendall(NEVER_DONE[what])
    said = {}
    for what, connection in connections.items():
        said[what] = connection.makefile("rb").read()  # to its end, or TimeoutError
        connection.close()
    for what in ("a head that stops", "no body of a webhook", "a byte of a webhook", "no body of a call", "a byte of a call"):
        assert said[what].startswith(b"HTTP/1.1 408 "), (what, said[what])
        assert said[what].count(b"HTTP/1.1 ") == 1
    for what in ("empty lines", "a byte to nowhere", "a byte of a call without a key"):
        assert said[what].count(b"HTTP/1.1 ") == 1, (what, said[what])
    assert '"api.error"' not in tight.log("gateway")[before:]


def test_g10_requests_that_wait_for_one_another_are_bounded(tight):
    with socket.create_connection(("127.0.0.1", tight.port), timeout=6) as sender, pytest.raises(ConnectionError):
        sender.sendall(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n" * 500_000)


def test_g10_answers_that_are_not_read_are_not_kept(tight):
    with socket.socket() as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sender.settimeout(6)
        sender.connect(("127.0.0.1", tight.port))
        sender.sendall(b"GET /schema/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 90)
        time.sleep(2.5)  # the wire tells nothing of what is kept beyond it
        assert 0 < sender.makefile("rb").read().count(b"HTTP/1.1 200 ") < 90


FEW_FILES = """
import resource

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 300))
"""


def test_g10_more_connections_than_files_make_room_for_good_webhooks(tmp_path):
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "files.py").write_text(FEW_FILES)
    with site(tmp_path, settings={"TIDEGATE_PROVIDERS": "few"}) as made:
        made.run("migrate")
        made.start("gateway")
        made.wait_ready()
        senders = [socket.create_connection(("127.0.0.1", made.port), timeout=5) for _ in range(400)]
        for sender in senders:
            with contextlib.suppress(ConnectionError):  # it has made room already
                sender.sendall(b"POST /webhooks/stripe HTTP/1.1\r\n" + BODY_TO_COME)
        assert post(made.url(), "evt_good").status_code == 200
        with senders[0] as longest:
            assert longest.recv(4096).startswith(b"HTTP/1.1 503 ")
        assert post(made.url(), "evt_better").status_code == 200
        for sender in senders:
            sender.close()
