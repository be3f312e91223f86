"""`tidegate dev` asks for no key, and so lets in nothing but programs of this machine."""

from __future__ import annotations

import httpx
import pytest

from tests.processes import site


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with site(tmp_path_factory.mktemp("dev")) as made:
        made.start("dev")
        made.wait_ready()
        yield made.url()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://localhost:8288"}, 200),
        ({"Origin": "http://127.0.0.1:3000", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "https://localhost.evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Host": "evil.example"}, 403),
    ],
)
def test_a_page_of_another_site_is_not_let_in(url, headers, status):
    response = httpx.post(f"{url}/api/v1/events", headers=headers, json={"name": "a/b"})
    assert response.status_code == status, response.text
