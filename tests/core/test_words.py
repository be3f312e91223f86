"""What the command line and the log say, where they can be asked without a gateway."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from gateway.cli.functions import triggers
from gateway.observe.logs import LogListener


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ({"id": "mine", "on": ["a/b", "c/*"]}, "a/b, c/*"),
        ({"id": "mine", "on": []}, "when invoked"),
        ({"id": "mine.on-failure", "on": []}, "when mine fails"),
    ],
)
def test_a_function_without_triggers_says_who_runs_it(function, says):
    assert triggers(function) == says


@pytest.mark.parametrize(
    ("move", "told"),
    [
        ("fail", [("warning", "run failed")]),
        ("retry", [("info", "attempt failed; the run is tried again")]),
        ("cancel", [("info", "run was cancelled")]),
        ("succeed", []),
        ("park", []),
    ],
)
def test_only_a_run_that_has_failed_for_good_is_told_as_failed(move, told):
    with capture_logs() as lines:
        LogListener()("run.ended", {"run": "run_1", "move": move, "duration_us": 5, "error": None})
    assert [(line["log_level"], line["event"]) for line in lines] == told
