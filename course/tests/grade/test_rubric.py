"""The rubric is data: checked when it is read."""

from __future__ import annotations

import pytest
import yaml

from tinypress_course.cells import read_cells
from tinypress_course.errors import CourseError
from tinypress_course.grade.rubric import RUBRIC, read_rubric
from tinypress_course.module import SOURCE
from tinypress_course.standing import points_of


def test_the_course_rubric_is_40_30_30(rubric, module):
    assert (rubric.technical.points, rubric.tradeoffs.points, rubric.application.points) == (40, 30, 30)
    assert sum(points_of(read_cells(module / SOURCE)).values()) == 100
    assert set(rubric.application.parts) < set(points_of(read_cells(module / SOURCE)))


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("technical", "points"), 50, "not 100"),
        (("technical", "points"), "many", "technical.points"),
        (("application", "budget_shares"), [], "budget_shares"),
        (("application", "parts"), {"a": 0.8, "b": 0.8}, "more than 1"),
        (("limits", "call_seconds"), 0, "call_seconds"),
        (("surprise",), 1, "surprise"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, place, value, said):
    data = yaml.safe_load(RUBRIC.read_text())
    inner = data
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path = tmp_path / "rubric.yaml"
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(CourseError, match=said):
        read_rubric(path)


def test_a_file_that_is_none_is_refused(tmp_path):
    for content in (b"a: [", b"\xff", b""):
        (tmp_path / "rubric.yaml").write_bytes(content)
        with pytest.raises(CourseError, match="rubric"):
            read_rubric(tmp_path / "rubric.yaml")
    with pytest.raises(CourseError):
        read_rubric(tmp_path / "none.yaml")
