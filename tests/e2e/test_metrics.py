"""`/metrics`: what Prometheus reads there, and that no stranger can make it grow."""

from __future__ import annotations

import time

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.processes import API_KEY, HTTP, post, until

HISTOGRAMS = {"tidegate_webhook_duration_seconds", "tidegate_attempt_duration_seconds", "tidegate_run_wait_seconds"}
COUNTERS = {"tidegate_webhooks", "tidegate_webhook_refusals", "tidegate_attempts", "tidegate_retention_rows"}
GAUGES = {
    "tidegate_store_up", "tidegate_journal_queued", "tidegate_backlog_due", "tidegate_backlog_oldest_due_seconds",
    "tidegate_backlog_waiting", "tidegate_processes",
}  # fmt: skip

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(many, port: int | None = None) -> tuple[dict[str, str], Samples]:
    answer = HTTP.get(many.site.url(port) + "/metrics", headers={"Authorization": f"Bearer {API_KEY}"})
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = list(text_string_to_metric_families(answer.text))
    assert all(family.documentation for family in families)
    samples = {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}
    return {family.name: family.type for family in families}, samples


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, frozenset(labels.items())), 0)


def test_metrics_parse_and_count_what_every_gateway_and_worker_did(many):
    _, before = scrape(many)
    for n in range(6):
        assert post(many.site.url(many.ports[n % 2]), f"evt_counted_{n}_{time.time_ns()}").status_code == 200
    assert post(many.site.url(), "evt_counted_twice").status_code == post(many.site.url(), "evt_counted_twice").status_code
    assert post(many.site.url(), "evt_x", secret="whsec_wrong").status_code == 401
    HTTP.post(many.site.url() + "/webhooks/github", content=b"{}")
    grown = {
        ("tidegate_webhooks_total", ("source", "stripe"), ("outcome", "accepted")): 7,
        ("tidegate_webhooks_total", ("source", "stripe"), ("outcome", "duplicate")): 1,
        ("tidegate_webhook_refusals_total", ("source", "stripe"), ("reason", "no_match")): 1,
        ("tidegate_webhook_refusals_total", ("source", "github"), ("reason", "missing_header")): 1,
        ("tidegate_webhook_duration_seconds_count", ("source", "stripe")): 8,
        ("tidegate_attempts_total", ("function", "quick"), ("outcome", "succeeded")): 7,
        ("tidegate_attempts_total", ("function", "typed"), ("outcome", "failed")): 7,
        ("tidegate_attempt_duration_seconds_count", ("function", "quick")): 7,
        ("tidegate_run_wait_seconds_count", ("function", "quick")): 7,
    }

    def counted(port: int) -> bool:
        _, now = scrape(many, port)
        return all(value(now, name, **dict(labels)) - value(before, name, **dict(labels)) >= n for (name, *labels), n in grown.items())

    for port in many.ports:
        until(lambda port=port: counted(port), 10)
    until(lambda: value(scrape(many)[1], "tidegate_processes", kind="gateway") == 2)
    types, samples = scrape(many)
    assert types == {**dict.fromkeys(HISTOGRAMS, "histogram"), **dict.fromkeys(COUNTERS, "counter"), **dict.fromkeys(GAUGES, "gauge")}
    assert value(samples, "tidegate_store_up") == 1
    assert value(samples, "tidegate_processes", kind="worker") == 2
    for name in HISTOGRAMS:
        check_buckets(samples, name)


def check_buckets(samples: Samples, name: str) -> None:
    series = {labels - {pair for pair in labels if pair[0] == "le"} for sample, labels in samples if sample == f"{name}_bucket"}
    assert series
    for labels in series:
        found = [(float(dict(own)["le"]), n) for (sample, own), n in samples.items() if sample == f"{name}_bucket" and labels <= own]
        counts = [n for _, n in sorted(found)]
        assert counts == sorted(counts)
        assert counts[-1] == samples[f"{name}_count", labels]
        assert samples[f"{name}_sum", labels] >= 0


def test_what_waits_is_shown_by_function_and_reason(many):
    many.site.call("POST", "/functions/stopped/pause")
    try:
        for _ in range(3):
            many.site.call("POST", "/functions/stopped/invoke", {})
        until(lambda: value(scrape(many)[1], "tidegate_backlog_waiting", reason="paused") >= 3)
        assert value(scrape(many)[1], "tidegate_backlog_waiting", reason="no_worker_offers_it") == 0
    finally:
        many.site.call("POST", "/functions/stopped/resume")
    until(lambda: value(scrape(many)[1], "tidegate_backlog_waiting", reason="paused") == 0)


def test_the_backlog_and_how_long_its_oldest_run_has_been_due_are_shown_while_no_worker_runs(tight):
    for n in range(3):
        assert post(tight.url(), f"evt_backlog_{n}").status_code == 200
    tight.run("worker", "--publish-only")
    until(lambda: tight.get("/functions")["data"], 3)
    for n in range(3):
        assert post(tight.url(), f"evt_due_{n}").status_code == 200
    time.sleep(0.1)
    text = HTTP.get(tight.url() + "/metrics", headers={"Authorization": f"Bearer {API_KEY}"}).text
    samples = {(s.name, s.labels.get("function")): s.value for f in text_string_to_metric_families(text) for s in f.samples}
    assert samples["tidegate_backlog_due", "slow"] == 3
    assert samples["tidegate_backlog_oldest_due_seconds", "slow"] >= 0.1


def test_a_flood_of_names_nobody_configured_makes_no_series_and_no_line(many):
    def labels() -> set[tuple[str, frozenset[tuple[str, str]]]]:
        return {key for key in scrape(many)[1] if not key[0].startswith("tidegate_backlog")}

    before = value(scrape(many)[1], "tidegate_webhook_refusals_total", source="stripe", reason="no_match")
    lines = many.site.log("gateway").count("\n")
    with httpx.Client() as client:
        for n in range(200):
            assert client.post(f"{many.site.url()}/webhooks/unknown-{n}", content=b"{}").status_code == 404
            client.get(f"{many.site.url()}/api/v1/functions/unknown-{n}", headers={"Authorization": f"Bearer {API_KEY}"})
            client.get(f"{many.site.url()}/unknown-{n}")
    assert post(many.site.url(), "evt_after_flood", secret="whsec_wrong").status_code == 401
    until(lambda: value(scrape(many)[1], "tidegate_webhook_refusals_total", source="stripe", reason="no_match") > before, 10)
    assert not [key for key in labels() if "unknown" in str(key)]
    assert many.site.log("gateway").count("\n") <= lines + 2
