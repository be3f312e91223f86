"""HTTP as odd but honest clients speak it: every request gets its own answer."""

from __future__ import annotations

import json
import socket
import time

import psycopg
import pytest

from tests.e2e.conftest import TIGHT
from tests.processes import API_KEY, Site, site, stripe_delivery

H2C = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"


def webhook(key: str, more: str = "") -> bytes:
    body, headers = stripe_delivery(key)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST /webhooks/stripe HTTP/1.1\r\nHost: x\r\n{more}{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


def call(method: str, path: str, more: str = "", body: bytes = b"") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {API_KEY}\r\n{more}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def answers(made: Site, *parts: bytes, count: int, seconds: float = 6) -> list[tuple[int, bytes]]:
    """Statuses and bodies of `count` answers on one connection to which these parts are sent, one after another."""
    found: list[tuple[int, bytes]] = []
    with socket.create_connection(("127.0.0.1", made.port), timeout=seconds) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(0.05)  # so that they come apart
        with connection.makefile("rb") as stream:
            while len(found) < count:
                status = int(stream.readline().split()[1])
                length = 0
                while (line := stream.readline().strip()) != b"":
                    name, _, value = line.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                found.append((status, stream.read(length)))
    return found


@pytest.mark.parametrize("cut", [None, 20, 300, 350])
def test_g2_a_request_of_a_client_that_would_rather_speak_http_2_is_taken_as_it_is(tight, cut):
    sent = webhook(f"evt_h2c_{cut}", H2C)
    [(status, body)] = answers(tight, *([sent] if cut is None else [sent[:cut], sent[cut:]]), count=1)
    assert status == 200
    event = tight.get(f"/events/{json.loads(body)['id']}")
    kept = dict(tight.get(f"/requests/{event['request_id']}")["headers"])
    assert (kept["upgrade"], kept["http2-settings"]) == ("h2c", "AAEAAEAAAAIAAAAB")


def test_what_is_pipelined_behind_an_upgrade_is_answered_too(tight):
    sent = json.dumps({"name": "own/upgraded", "data": {"n": 1}}).encode()
    more = f"{H2C}Content-Type: application/json\r\n"
    parts = [call("POST", "/api/v1/events", more, sent), webhook("evt_behind", H2C), call("GET", "/healthz", H2C), webhook("evt_last")]
    assert [status for status, _ in answers(tight, b"".join(parts), count=4)] == [200, 200, 200, 200]


def test_g7_an_upgrade_gets_nobody_in_and_moves_no_bytes_to_another_request(tight):
    forged = webhook("evt_forged", H2C).replace(b"v1=", b"v1=0")
    assert [status for status, _ in answers(tight, forged, count=1)] == [401]
    doubled = webhook("evt_doubled", H2C + "Content-Length: 1\r\n")
    assert [status for status, _ in answers(tight, doubled, count=1)] == [400]
    assert [status for status, _ in answers(tight, b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", count=1)] == [405]
    websocket = call("GET", "/api/v1/events", "Connection: Upgrade\r\nUpgrade: websocket\r\n").replace(API_KEY.encode(), b"tg_not_a_key")
    assert [status for status, _ in answers(tight, websocket, count=1)] == [401]


def test_what_came_whole_is_answered_before_the_garbage_behind_it(tight):
    parts = webhook("evt_before_garbage"), call("GET", "/healthz"), webhook("evt_last_before_garbage")
    got = answers(tight, b"".join(parts) + b"\x16\x03\x01 garbage\r\n\r\n", count=4)
    assert [status for status, _ in got] == [200, 200, 200, 400]
    assert tight.get(f"/events/{json.loads(got[2][1])['id']}")
    connect = b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n"
    assert [status for status, _ in answers(tight, webhook("evt_before_connect") + connect, count=2)] == [200, 405]


@pytest.mark.parametrize("before", ["webhook", "call"])
def test_what_came_whole_is_answered_before_the_broken_body_behind_it(tight, before):
    broken = b"POST /webhooks/stripe HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n"
    good = call("GET", "/api/v1/events") if before == "call" else webhook("evt_before_broken")
    assert [status for status, _ in answers(tight, good + broken, count=2)] == [200, 400]
    assert "Traceback" not in tight.log("gateway")


def test_a_broken_body_behind_its_answer_brings_no_second_one(tight):
    head = b"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", tight.port), timeout=6) as connection:
        connection.sendall(head + b"1\r\nx\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 401 ")
        connection.sendall(b"ZZ\r\n")
        assert connection.recv(4096) == b""


def test_of_too_many_that_are_pipelined_the_first_are_answered(tight):
    sent = b"".join(webhook(f"evt_pipelined_{n}") for n in range(110))
    statuses = [status for status, _ in answers(tight, sent, count=102)]
    assert statuses == [200] * 101 + [503]


def test_a_head_is_bounded_behind_another_request_too(tight):
    large = call("GET", "/api/v1/events", f"X-Large: {'x' * 100_000}\r\n")
    assert [status for status, _ in answers(tight, call("GET", "/healthz") + large, count=2)] == [200, 431]


@pytest.mark.parametrize(("path", "status"), [("stripe", 413), ("nobody", 404)])
def test_a_refusal_reaches_who_still_sends(tight, path, status):
    head = f"POST /webhooks/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 20000000\r\n\r\n".encode()
    assert [found for found, _ in answers(tight, head, b"x" * 10_000_000, b"x" * 10_000_000, count=1)] == [status]


def test_a_refusal_that_ends_the_connection_reaches_who_still_sends_to_the_api(tight):
    head = b"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 20000000\r\n\r\n"
    assert [found for found, _ in answers(tight, head, b"x" * 10_000_000, b"x" * 10_000_000, count=1)] == [401]


def test_g2_what_is_pipelined_behind_a_request_that_ends_the_connection_is_not_taken(tight):
    behind = webhook("evt_not_taken")
    ending = call("POST", "/webhooks/stripe", "Connection: close\r\nContent-Encoding: br\r\n", b"x")
    assert [status for status, _ in answers(tight, ending + behind, count=1)] == [415]
    [(status, body)] = answers(tight, behind, count=1)
    assert (status, json.loads(body)["duplicate"]) == (200, False)


def test_who_waits_for_our_answer_is_not_timed(tmp_path, postgres_url):
    (tmp_path / "tight").mkdir()
    (tmp_path / "tight" / "limits.py").write_text(TIGHT)
    with site(tmp_path, database_url=postgres_url, settings={"TIDEGATE_PROVIDERS": "tight"}) as made:
        made.run("migrate")
        made.start("gateway")
        made.wait_ready()
        last = webhook("evt_last")
        with psycopg.connect(postgres_url) as holder, socket.create_connection(("127.0.0.1", made.port), timeout=10) as connection:
            holder.execute("lock table events in access exclusive mode")
            connection.sendall(call("GET", "/api/v1/events") + call("GET", "/healthz") + last[:60])
            for _ in range(2):  # as long as a head may take
                assert answers(made, b"GET / HT", count=1)[0][0] == 408
            holder.rollback()
            connection.sendall(last[60:])
            statuses: list[int] = []
            while len(statuses) < 3:
                got = connection.recv(1 << 20)
                assert got, statuses
                statuses += [int(part[:3]) for part in got.split(b"HTTP/1.1 ")[1:]]
        assert statuses == [200, 200, 200]
