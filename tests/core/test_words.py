"""What the command line and the log say, where they can be asked without a gateway."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from gateway.cli.functions import triggers
from gateway.cli.output import counted, is_by_hand
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


def test_only_one_thing_is_told_as_one():
    assert [counted(n, "run") for n in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]


@pytest.mark.parametrize(
    ("before", "number", "by_hand"),
    [
        (None, 1, False),
        ({"number": 1, "outcome": "failed"}, 2, False),
        ({"number": 3, "outcome": "failed"}, 1, True),
        ({"number": 1, "outcome": "cancelled"}, 1, True),
        ({"number": 1, "outcome": "handed_back"}, 1, False),
        ({"number": 1, "outcome": "lease_lost"}, 2, False),
    ],
)
def test_attempts_that_count_from_1_again_were_asked_for_by_hand(before, number, by_hand):
    assert is_by_hand({"number": number, "outcome": "failed"}, before) is by_hand
