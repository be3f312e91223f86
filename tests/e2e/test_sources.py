"""Sources and their secrets on every gateway: changed within a second, and shown with what was used."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.processes import HTTP, SECRET, Site, free_port, site, stripe_delivery, until


def status(made, source: str, secret: str, port: int | None = None) -> int:
    body, headers = stripe_delivery(f"evt_{source}_{time.time_ns()}", secret=secret)
    return HTTP.post(f"{made.url(port)}/webhooks/{source}", content=body, headers=headers).status_code


def everywhere(many, source: str, secret: str, wanted: int) -> None:
    for port in many.ports:
        until(lambda port=port: status(many.site, source, secret, port) == wanted, 1)


def test_whatever_changes_is_in_effect_on_every_gateway_within_a_second(many):
    call = many.site.call
    assert call("POST", "/sources", {"name": "lively", "provider": "stripe"}, port=many.ports[1]).status_code == 201
    everywhere(many, "lively", "whsec_one", 401)
    assert call("POST", "/sources/lively/secrets", {"secret": "whsec_one"}).status_code == 201
    everywhere(many, "lively", "whsec_one", 200)
    assert call("POST", "/sources/lively/secrets", {"secret": "whsec_two"}, port=many.ports[1]).status_code == 201
    everywhere(many, "lively", "whsec_two", 200)
    everywhere(many, "lively", "whsec_one", 200)
    end = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    assert call("PATCH", "/sources/lively/secrets/0", {"expires_at": end}, port=many.ports[1]).status_code == 200
    everywhere(many, "lively", "whsec_one", 401)
    assert call("DELETE", "/sources/lively/secrets/1").status_code == 200
    everywhere(many, "lively", "whsec_two", 401)
    assert call("POST", "/sources/lively/disable", port=many.ports[1]).status_code == 200
    everywhere(many, "lively", "whsec_two", 404)
    assert call("POST", "/sources/lively/enable").status_code == 200
    everywhere(many, "lively", "whsec_two", 401)
    assert call("DELETE", "/sources/lively", port=many.ports[1]).status_code == 204
    everywhere(many, "lively", "whsec_two", 404)


def test_a_number_that_is_given_anew_does_not_show_the_use_of_the_secret_before(many):
    many.site.call("POST", "/sources", {"name": "numbered", "provider": "stripe", "secrets": ["whsec_first"]})
    assert status(many.site, "numbered", "whsec_first") == 200
    until(lambda: many.site.get("/sources/numbered")["secrets"][0]["last_used_at"])
    many.site.call("DELETE", "/sources/numbered/secrets/0")
    many.site.call("POST", "/sources/numbered/secrets", {"secret": "whsec_second"})
    [secret] = many.site.get("/sources/numbered")["secrets"]
    assert (secret["n"], secret["last_used_at"]) == (0, None)
    assert status(many.site, "numbered", "whsec_second") == 200
    until(lambda: many.site.get("/sources/numbered")["secrets"][0]["last_used_at"])


def test_a_source_in_the_toml_is_shown_as_such_and_changed_nowhere_else(many):
    shown = many.site.get("/sources/from-toml", many.ports[1])
    assert (shown["origin"], shown["provider"], len(shown["secrets"])) == ("tidegate.toml", "stripe", 1)
    assert status(many.site, "from-toml", "whsec_from_toml") == 200
    assert "tidegate.toml" in many.site.cli("sources", "show", "from-toml")
    for words in (("disable", "from-toml"), ("delete", "from-toml", "--yes"), ("add-secret", "from-toml", "--secret", "whsec_more")):
        assert "configured by tidegate.toml" in many.site.cli("sources", *words, code=1)
    assert status(many.site, "from-toml", "whsec_more") == 401
    assert many.site.call("POST", "/sources", {"name": "from-toml", "provider": "stripe"}).status_code == 409


def test_which_secret_was_used_and_when_is_shown_and_survives_every_restart_but_that_of_a_rotation(tmp_path):
    with site(tmp_path, settings={"STRIPE_WEBHOOK_SECRET": "whsec_old"}) as made:
        made.run("migrate")

        def restart(secrets: str) -> list[str | None]:
            made.stop()
            made.settings["STRIPE_WEBHOOK_SECRET"] = secrets
            made.start("gateway")
            made.wait_ready()
            return [secret["last_used_at"] for secret in made.get("/sources/stripe")["secrets"]]

        made.start("gateway")
        made.wait_ready()
        assert status(made, "stripe", "whsec_old") == 200
        # What was used last is written down when the gateway ends, too.
        [used] = restart("whsec_old")
        assert used is not None
        assert used in made.cli("sources", "show", "stripe")
        assert restart("whsec_new,whsec_old") == [None, None], "the new secret has never been used"
        assert status(made, "stripe", "whsec_old") == 200
        until(lambda: made.get("/sources/stripe")["secrets"][1]["last_used_at"])
        assert made.get("/sources/stripe")["secrets"][0]["last_used_at"] is None
        assert SECRET not in made.log("gateway")


def test_a_use_that_could_not_be_written_down_is_not_forgotten(tight):
    first, second = (tight.call("POST", "/keys", {"name": "used", "scopes": ["read"]}).json() for _ in range(2))

    def is_used(made: dict) -> bool:
        return any(key["id"] == made["id"] and key["last_used_at"] for key in tight.get("/keys")["data"])

    tight.call("GET", "/functions", key=first["key"])
    until(lambda: is_used(first), 3)
    with tight.locked():
        assert tight.call("GET", "/functions", key=second["key"]).status_code == 200
        # Nobody else writes just now: what finds the database locked is the note of this use.
        until(lambda: HTTP.get(tight.url() + "/readyz").json()["store"]["state"] == "locked")
    until(lambda: is_used(second), 3)


ODD = """
from gateway.sdk.provider import Provider
from gateway.sdk.scheme import Hmac

class Odd(Provider):
    name = "odd"
    scheme = Hmac(header="X-Odd")
    type_at = "type"
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def left(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """A gateway that once had a source of its environment, and one of a provider, which are both gone."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else ""
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "odd.py").write_text(ODD)
    settings = {"GITHUB_WEBHOOK_SECRET": "gh-old", "TIDEGATE_PROVIDERS": "more"}
    with site(tmp_path, database_url=url, settings=settings) as made:
        made.run("migrate")
        made.start("gateway")
        made.wait_ready()
        assert made.call("POST", "/sources", {"name": "odd", "provider": "odd", "secrets": ["odd-secret"]}).status_code == 201
        made.stop()
        del made.settings["GITHUB_WEBHOOK_SECRET"]
        (tmp_path / "more" / "odd.py").unlink()
        made.start("gateway")
        made.wait_ready()
        yield made


def test_a_source_that_nothing_configures_or_provides_any_more_is_told_of_and_answers_404(left):
    listed = {row["name"]: row for row in left.get("/sources")["data"]}
    assert {name: row["enabled"] for name, row in listed.items()} == {"github": False, "odd": False, "stripe": True}
    assert "no longer configured by GITHUB_WEBHOOK_SECRET" in listed["github"]["left_out"]
    assert "no provider 'odd'" in listed["odd"]["left_out"]
    assert listed["stripe"]["left_out"] is None
    told = left.cli("doctor", code=1)
    for name in ("github", "odd"):
        assert HTTP.post(f"{left.url()}/webhooks/{name}", content=b"{}").status_code == 404
        for words in (left.cli("sources", "show", name), left.cli("trigger", name, "x", code=1), told):
            assert f"tidegate sources add {name}" in words
        assert f"tidegate sources delete {name}" in told
        assert "not served" in left.cli("sources", "enable", name, code=1)
    assert "no longer configured" in left.cli("sources")


def test_a_source_that_is_left_out_can_be_taken_over_with_a_new_secret_and_stays_so(left):
    left.cli("sources", "add", "github", "--secret", "gh-new")
    left.cli("sources", "add", "odd", "--provider", "stripe", "--secret", "whsec_odd")
    assert status(left, "odd", "whsec_odd") == 200
    assert "left out" not in left.cli("doctor")
    left.stop()
    # Who configures it again is told that there are two.
    left.settings["GITHUB_WEBHOOK_SECRET"] = "gh-old"
    left.start("gateway")
    left.wait_ready()
    shown = left.get("/sources/github")
    assert (shown["origin"], shown["enabled"], shown["left_out"]) == ("api", True, None)
    assert status(left, "odd", "whsec_odd") == 200
    assert "made through the API, which is kept" in left.cli("doctor", code=1)


def test_what_another_living_gateway_may_serve_is_deleted_or_taken_over_by_force_only(left):
    left.settings["GITHUB_WEBHOOK_SECRET"] = "gh-old"
    port = free_port()
    other = left.start("gateway", port=port)
    left.wait_ready(port)
    del left.settings["GITHUB_WEBHOOK_SECRET"]
    assert left.get("/sources/github", port)["left_out"] is None
    assert "another one may serve it" in left.get("/sources/github")["left_out"]
    for words in (("delete", "github", "--yes"), ("add", "github", "--secret", "gh-new")):
        said = " ".join(left.cli("sources", *words, code=1).split())
        assert f"process {other.pid}" in said
        assert "--force" in said
    assert left.get("/sources/github", port)["left_out"] is None

    left.cli("sources", "add", "github", "--secret", "gh-new", "--force")
    left.cli("sources", "delete", "odd", "--yes", "--force")
    until(lambda: left.get("/sources/github", port)["origin"] == "api")
    assert left.call("GET", "/sources/odd").status_code == 404


def test_a_gateway_that_has_ended_stands_in_nobodys_way(left):
    port = free_port()
    other = left.start("gateway", port=port)
    left.wait_ready(port)
    assert left.call("DELETE", "/sources/github").status_code == 409
    other.terminate()
    assert other.wait(20) == 0
    left.processes.remove(other)
    assert left.call("DELETE", "/sources/github").status_code == 204


def test_a_source_that_is_left_out_can_be_removed(left):
    for name in ("github", "odd"):
        assert left.call("DELETE", f"/sources/{name}", If_Match='"77"').status_code == 412
        left.cli("sources", "delete", name, "--yes")
        assert left.call("GET", f"/sources/{name}").status_code == 404
    assert "left out" not in left.cli("doctor")
