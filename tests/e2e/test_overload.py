"""Bad senders have bounds, and good ones pass."""

from __future__ import annotations

import socket
import time

import httpx

from tests.processes import post, site, stripe_delivery


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
