"""A known mistake is a mistake: it breaks a promise, and by a wrong answer rather than by a slip of its own."""

import pytest

from tinypress_course import probes
from tinypress_course.checks.all import ALL_CHECKS
from tinypress_course.checks.base import first_failure
from tinypress_course.feedback import standing_in
from tinypress_course.misconceptions.all import ALL_MISCONCEPTIONS

SLIPS = {"NameError", "UnboundLocalError", "ImportError", "AssertionError"}


def _first_failure(known):
    functions = standing_in(known)

    def call(function, inputs):
        return probes.call(functions, function, inputs)

    for check in ALL_CHECKS:
        if check.function == known.function:
            failure = first_failure(check, call, seed=3, most=1)
            if failure is not None:
                return failure
    return None


@pytest.mark.parametrize("function", sorted({known.function for known in ALL_MISCONCEPTIONS}))
def test_every_known_mistake_breaks_a_promise(function):
    mistakes = [known for known in ALL_MISCONCEPTIONS if known.function == function]
    failures = {known.name: _first_failure(known) for known in mistakes}
    assert [name for name, failure in failures.items() if failure is None] == []
    slips = {
        name: failure.answer for name, failure in failures.items() if failure.answer.get("error") in SLIPS
    }
    assert slips == {}


@pytest.mark.parametrize("function", sorted({known.function for known in ALL_MISCONCEPTIONS}))
def test_a_name_says_one_thing(function):
    said = {(known.name, known.says) for known in ALL_MISCONCEPTIONS if known.function == function}
    assert len({name for name, _ in said}) == len(said)
