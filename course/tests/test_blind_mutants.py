"""Mistakes that were written without sight of the list of known ones: all fail, and most are named."""

import pytest

from mutants import blind_first, blind_fourth, blind_second, blind_third, mutated_definitions
from tinypress_course.cells import run_definitions
from tinypress_course.feedback import evaluate

SETS = {
    "first": blind_first.MUTANTS,
    "second": blind_second.MUTANTS,
    "third": blind_third.MUTANTS,
    "fourth": blind_fourth.MUTANTS,
}


@pytest.mark.parametrize(
    "which", [pytest.param(name, marks=() if name == "fourth" else pytest.mark.slow) for name in SETS]
)
def test_all_fail_and_most_are_named(which):
    told = [
        (
            mutant,
            evaluate(mutant.function, run_definitions(mutated_definitions(mutant), "m.py"), 3, hidden=True),
        )
        for mutant in SETS[which]
    ]
    assert len(told) >= 25
    assert [(mutant.function, mutant.new) for mutant, feedback in told if feedback is None] == []
    named = [m for m, feedback in told if {known.name for known in feedback.named} & set(m.named)]
    assert len(named) >= 0.6 * len(told), [(m.function, m.new) for m, _ in told if m not in named]
