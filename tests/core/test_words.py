"""What the command line says, where it can be asked without a gateway."""

from __future__ import annotations

import pytest

from gateway.cli.functions import triggers


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
