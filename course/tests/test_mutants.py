"""Every planted mistake is caught, and most are named; the right solution is not."""

import pytest

from mutants import SOURCE, Mutant, mutated
from mutants.first_half import MUTANTS
from tinypress_course.cells import load_definitions
from tinypress_course.checks.all import ALL_CHECKS
from tinypress_course.feedback import Feedback, evaluate

FUNCTIONS = sorted({check.function for check in ALL_CHECKS})


def _feedback(mutant: Mutant, folder) -> Feedback | None:
    path = folder / "compression_dev.py"
    path.write_text(mutated(mutant))
    return evaluate(mutant.function, load_definitions(path), seed=3, hidden=True)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mutants")
    return [(mutant, _feedback(mutant, folder)) for mutant in MUTANTS]


def test_every_mutant_fails(told):
    assert [(m.function, m.new) for m, feedback in told if feedback is None] == []


def test_mutants_are_spread_and_most_are_named(told):
    assert len(told) >= 40
    assert {m.function for m, _ in told} == set(FUNCTIONS)
    missed = [
        (m.function, m.new, m.named, tuple(known.name for known in feedback.named))
        for m, feedback in told
        if feedback is not None and not ({known.name for known in feedback.named} & set(m.named))
    ]
    assert len(missed) <= 0.2 * len(told), missed


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_right_solution_keeps_every_promise(function):
    functions = load_definitions(SOURCE)
    assert [evaluate(function, functions, seed, hidden=True) for seed in (0, 1, 2)] == [None, None, None]
