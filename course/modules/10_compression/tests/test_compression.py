"""Your functions against the course's checks: ``pytest`` in the module's folder says what ``tito test`` says."""

from pathlib import Path

import pytest

from tinypress_course.cells import load_definitions
from tinypress_course.errors import CourseError
from tinypress_course.feedback import as_text, evaluate
from tinypress_course.module import read_module, work_file

FOLDER = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def functions():
    try:
        return load_definitions(work_file(FOLDER))
    except CourseError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.mark.parametrize("function", read_module(FOLDER).functions)
def test_keeps_its_promises(function, functions):
    feedback = evaluate(function, functions, seed=0)
    if feedback is not None:
        pytest.fail(as_text(feedback), pytrace=False)
