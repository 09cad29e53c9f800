"""What the tests of grading share: one sandbox for all of them, and learners' files made from the solution."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from learning import MODULE
from tinypress_course.cells import read_cells
from tinypress_course.grade.child import Jail
from tinypress_course.grade.rubric import Limits, Rubric, read_rubric
from tinypress_course.grade.sandbox import Sandbox, open_sandbox
from tinypress_course.grade.submission import Submission
from tinypress_course.module import SOURCE

SOLVED = (MODULE / SOURCE).read_text(encoding="utf-8")
BLOCK = re.compile(r"^( *)### BEGIN SOLUTION\n.*?### END SOLUTION$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="session")
def rubric() -> Rubric:
    return read_rubric()


@pytest.fixture(scope="session")
def limits(rubric) -> Limits:
    """Short ones: a loop costs a second."""
    short = {"import_seconds": 2.0, "call_seconds": 2.0, "memory_bytes": 1 << 28}
    return rubric.limits.model_copy(update=short)


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """The strongest there is on this machine."""
    with open_sandbox() as opened:
        yield opened


@pytest.fixture(scope="session")
def jail(sandbox, limits) -> Iterator[Jail]:
    opened = Jail(sandbox, limits)
    opened.wait_until_ready()
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def instead() -> Callable[..., str]:
    """The solution with ``body`` as the whole of one function, after ``before`` at the top of its cell."""

    def write(function: str, body: str, before: str = "") -> str:
        cell = next(c.text for c in read_cells(MODULE / SOURCE) if c.grade_id == function)
        assert len(BLOCK.findall(cell)) == 1
        lines = body.strip("\n").splitlines()
        changed = BLOCK.sub(lambda found: "\n".join(f"{found[1]}{line}" for line in lines), cell)
        assert SOLVED.count(cell) == 1
        return SOLVED.replace(cell, f"{before}\n{changed}")

    return write


@pytest.fixture(scope="session")
def handed_in() -> Callable[..., Submission]:
    def make(text: str = SOLVED, learner: str = "ada", **files: str) -> Submission:
        return Submission(learner, f"{learner}.zip", {SOURCE: text, **files})

    return make


@pytest.fixture(scope="session")
def module() -> Path:
    return MODULE
