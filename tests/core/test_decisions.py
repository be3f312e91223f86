"""Pure decisions: the state table, retries, matching, settings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import settings
from gateway.core import states
from gateway.core.decide import decide
from gateway.core.match import Matcher
from gateway.core.outcome import Completed, Failed, Failure, HandedBack
from gateway.core.retry import CAP_SECONDS, backoff_seconds
from gateway.core.spec import FunctionSpec
from gateway.errors import SettingsError

OUTCOMES = st.one_of(
    st.just(Completed(b"1")),
    st.just(HandedBack()),
    st.builds(Failed, st.just(Failure("E", "m")), st.booleans(), st.one_of(st.none(), st.integers(0, 10**16))),
)


@given(OUTCOMES, st.integers(1, 10), st.integers(1, 10), st.integers(0, 10**16), st.floats(0, 3600))
def test_every_decision_is_a_move_the_state_table_has(outcome, attempt, attempts, now, wait):
    decision = decide(outcome, attempt=attempt, attempts=attempts, now=now, backoff_seconds=lambda _: wait)
    assert decision.move in states.TRANSITIONS["running"]
    if decision.move == "retry":
        assert attempt < attempts
        assert decision.due_at is not None
        assert decision.due_at >= now


def test_final_states_are_left_only_by_a_retry_somebody_asked_for():
    for state in states.FINAL:
        assert set(states.TRANSITIONS[state]) <= {"retry"}


def test_the_diagram_names_every_state():
    assert all(state in states.diagram() for state in states.TRANSITIONS)


@given(st.integers(1, 100))
def test_backoff_has_full_jitter_under_a_growing_cap(attempt):
    assert 0 <= backoff_seconds(attempt) <= min(2.0 * 2 ** (attempt - 1), CAP_SECONDS)


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("stripe/invoice.paid", "stripe/invoice.paid", True),
        ("stripe/invoice.*", "stripe/invoice.paid", True),
        ("stripe/*", "github/push", False),
        ("stripe/invoice.paid", "stripe/invoiceXpaid", False),
        ("*", "anything/at.all", True),
    ],
)
def test_names_match_exactly_or_by_wildcard(pattern, name, matches):
    matcher = Matcher([FunctionSpec(id="f", on=(pattern,))])
    assert bool(matcher.match(name, dict)) is matches


def test_a_condition_that_is_false_or_fails_is_a_skip_with_its_reason():
    spec = FunctionSpec(id="f", on=("a/b",), if_="event.data.n > 3")
    reasons = [Matcher([spec]).match("a/b", lambda d=d: {"data": d})[0].skip_reason for d in ({"n": 4}, {"n": 1}, {})]
    assert reasons[:2] == [None, "if_false"]
    assert reasons[2] is not None
    assert reasons[2].startswith("if_error")


def test_sources_come_from_the_environment_and_from_the_file(tmp_path):
    (tmp_path / "tidegate.toml").write_text('port = 9000\n[sources.shop]\nprovider = "stripe"\nsecrets = ["a,1", "b"]\n')
    found = settings.load({"STRIPE_WEBHOOK_SECRET": "new, old"}, tmp_path)
    assert found.port == 9000
    assert {s.name: (s.provider, s.secrets) for s in found.sources} == {
        "shop": ("stripe", ("a,1", "b")),
        "stripe": ("stripe", ("new", "old")),
    }


@pytest.mark.parametrize(
    ("environment", "file", "names"),
    [
        ({"TIDEGATE_PORT": "many"}, "", "TIDEGATE_PORT"),
        ({"TIDEGATE_PORT": "70000"}, "", "TIDEGATE_PORT"),
        ({"TIDEGATE_DATABASE_URL": "mysql://x"}, "", "TIDEGATE_DATABASE_URL"),
        ({"TIDEGATE_PROT": "1"}, "", "did you mean TIDEGATE_PORT"),
        ({}, "prot = 1", "did you mean port"),
        ({}, "[sources.a]\nsecrets = 5", "sources.a"),
        ({}, "colour = 1", "colour"),
        ({}, "this is not toml", "tidegate.toml"),
        ({"A_WEBHOOK_SECRET": "x"}, '[sources.a]\nsecret = "y"', "A_WEBHOOK_SECRET"),
    ],
)
def test_a_bad_setting_is_refused_by_name_and_never_shows_a_secret(tmp_path, environment, file, names):
    (tmp_path / "tidegate.toml").write_text(file)
    with pytest.raises(SettingsError, match=names):
        settings.load(environment, tmp_path)
