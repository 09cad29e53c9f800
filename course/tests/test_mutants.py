"""Every planted mistake is caught, and most are named; the right solution is not."""

from collections import Counter

import pytest

from mutants import SOURCE, Mutant, first_half, mutated_definitions, second_half
from tinypress_course.cells import load_definitions, run_definitions
from tinypress_course.checks.all import ALL_CHECKS
from tinypress_course.feedback import Feedback, evaluate

MUTANTS = (*first_half.MUTANTS, *second_half.MUTANTS)
FUNCTIONS = sorted({check.function for check in ALL_CHECKS})


def _feedback(mutant: Mutant) -> Feedback | None:
    functions = run_definitions(mutated_definitions(mutant), "mutant.py")
    return evaluate(mutant.function, functions, seed=3, hidden=True)


@pytest.fixture(scope="module")
def told():
    return [(mutant, _feedback(mutant)) for mutant in MUTANTS]


def test_every_mutant_fails(told):
    assert [(m.function, m.new) for m, feedback in told if feedback is None] == []


def test_mutants_are_spread_and_most_are_named(told):
    spread = Counter(mutant.function for mutant, _ in told)
    assert len(told) >= 75
    assert len(spread) == 14
    assert min(spread.values()) >= 4
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
