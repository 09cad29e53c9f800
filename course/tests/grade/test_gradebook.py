"""The gradebook: points add up, mistakes are counted, and what a learner wrote stays text."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest

from tinypress_course.grade.gradebook import (
    Run,
    as_csv,
    as_data,
    as_page,
    mistakes_of,
    rows_of,
    write_gradebook,
)
from tinypress_course.grade.likeness import Alike
from tinypress_course.grade.result import Applied, Grade, Judged, Named, Outcome, Understanding

EVIL = "<script>alert(1)</script>"
HALVED = Named(name="halved", says="You divide by 2^bits, and not by one less.")
RUN = Run("10_compression", 7, "namespaces", 27_000)


def outcome(function, points, *, keeps, text="", named=()):
    return Outcome(function=function, step=1, points=points, keeps=keeps, text=text, named=named)


@pytest.fixture
def grades():
    ada = Grade(
        learner="ada",
        source="ada.zip",
        outcomes=(outcome("f", 60, keeps=True), outcome("g", 40, keeps=True)),
        technical=40,
        understanding=Understanding(
            points=20, claims=(Judged(step=1, name="phone", counts=True, why="right"),)
        ),
        applied=Applied(points=30, budget_bytes=27_000, file_bytes=26_000, points_lost=1.0),
    )
    evil = Grade(
        learner="=cmd()",
        source=EVIL,
        outcomes=(
            outcome("f", 60, keeps=False, text=EVIL, named=(HALVED,)),
            outcome("g", 40, keeps=True),
        ),
        technical=16,
        understanding=Understanding(implausible=(EVIL,), problem=EVIL),
        applied=Applied(notes=(EVIL,), stood_in=("f",)),
        notes=(EVIL,),
    )
    broken = Grade(learner="carl", source="carl.zip", failure="the archive is broken")
    return [ada, evil, broken]


@pytest.fixture
def rows(grades, rubric):
    alike = [Alike("=cmd()", "f", "tinypress/quantize/layer.py", 0.93)]
    return rows_of(grades, {"ada": 0.5}, alike, rubric)


def test_the_points_add_up_and_the_teachers_are_asked_for(rows):
    ada, evil, broken = rows
    assert (ada.tradeoffs, ada.total, ada.of, ada.flags) == (25, 95, 100, ())
    assert (evil.total, evil.of) == (16, 90)
    assert "not marked yet" in evil.flags
    assert "like tinypress/quantize/layer.py: f 93%" in evil.flags
    assert (broken.total, broken.of, broken.flags[0]) == (0, 90, "the archive is broken")


def test_a_spreadsheet_takes_nothing_for_a_formula(rows, rubric):
    lines = list(csv.reader(io.StringIO(as_csv(rows))))
    assert lines[0] == [
        "learner",
        "automatic points",
        "technical",
        "trade-offs",
        "application",
        "total",
        "of",
        "flags",
    ]
    assert lines[1][:7] == ["ada", "100.00", "40.00", "25.00", "30.00", "95.00", "100.00"]
    assert lines[2][0] == "'=cmd()"
    for start in "=+-@|%\t\r\n":
        grade = Grade(learner=f"{start}1+1", source="x", failure=f"{start}2+2")
        cells = list(csv.reader(io.StringIO(as_csv(rows_of([grade], {}, [], rubric)))))[1]
        assert not any(cell.startswith(tuple("=+-@|%\t\r\n")) for cell in cells)


def test_the_page_holds_everything_and_escapes_it(rows, rubric):
    page = as_page(rows, RUN, rubric)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 5
    for text in (
        "95 of 100",
        "16 of 90",
        HALVED.says,
        "26,000 bytes for a budget of 27,000",
        "kernel namespaces",
    ):
        assert text in page
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!#)""", page)
    assert "http" not in page.replace("http-equiv", "")
    assert "prefers-color-scheme: dark" in page
    assert "width=device-width" in page


def test_mistakes_are_counted_over_the_class(grades):
    dora = grades[1].model_copy(update={"learner": "dora"})
    (mistake,) = mistakes_of([*grades, dora])
    assert (mistake.function, mistake.known, mistake.learners) == ("f", HALVED, ("=cmd()", "dora"))


def test_all_three_files_say_the_same(rows, rubric, tmp_path):
    write_gradebook(tmp_path, rows, RUN, rubric)
    data = json.loads((tmp_path / "gradebook.json").read_text())
    assert data == json.loads(json.dumps(as_data(rows, RUN)))
    assert [each["total"] for each in data["learners"]] == [95, 16, 0]
    assert "prints" not in data["learners"][0]
    assert data["mistakes"][0]["learners"] == ["=cmd()"]
    assert (tmp_path / "gradebook.csv").read_text() == as_csv(rows)
    assert (tmp_path / "gradebook.html").read_text() == as_page(rows, RUN, rubric)
