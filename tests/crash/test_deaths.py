"""G4 and G5 at every commit: a worker's first commit is a claim; right after the next one, or before the one after that, it dies."""

from __future__ import annotations

import random

import pytest

from tests.crash.deaths import MOST_DEATHS, Grave, Tally
from tests.crash.mortal import Death
from tests.crash.programs import PLAIN, flat, make_up

SEED, PROGRAMS = 1393, 4  # few programs in which everything occurs


@pytest.mark.parametrize("death", [(2, "after"), (3, "before")])
def test_g4_g5_workers_that_die_at_every_commit_lose_no_run_and_do_nothing_again_that_is_committed(database_url, tmp_path, death: Death):
    chance, tally = random.Random(SEED), Tally()
    made = [make_up(chance, f"p{n}") for n in range(PROGRAMS)]
    grave = Grave(database_url, tmp_path, tally, SEED)
    try:
        grave.play(made, [death] * MOST_DEATHS)
    finally:
        grave.close()
    assert tally.broken == []
    assert tally.deaths.total() > 30


def test_the_programs_have_steps_of_every_kind_and_every_end():
    chance = random.Random(SEED)
    made = [make_up(chance, "p") for _ in range(PROGRAMS)]
    assert {op["kind"] for one in made for op in flat(one.ops)} >= {*PLAIN, "gather", "map", "stumble"}
    assert {one.outcome for one in made} == {"succeeded", "failed", "cancelled"}
    assert {one.trigger for one in made} == {"crash/mixed", "crash/mixed_sync", "crash/patient"}
