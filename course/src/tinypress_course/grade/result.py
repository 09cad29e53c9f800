"""What grading finds out about one submission, as frozen data that is kept between runs."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from tinypress_course.files import write_text


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Named(_Fact):
    """A known mistake that gives a learner's answers."""

    name: str
    says: str


class Outcome(_Fact):
    """One function: whether it keeps all its promises, and otherwise what a learner is told."""

    function: str
    step: int
    points: float
    keeps: bool
    written: bool = True
    text: str = ""
    named: tuple[Named, ...] = ()

    @property
    def earned(self) -> float:
        """All of its points or none."""
        return self.points if self.keeps else 0.0


class Judged(_Fact):
    """One prediction or claim: whether it counts, and why."""

    step: int
    name: str
    counts: bool
    why: str


class Understanding(_Fact):
    """The part about trade-offs, without the teacher's mark."""

    predictions: tuple[Judged, ...] = ()
    claims: tuple[Judged, ...] = ()
    implausible: tuple[str, ...] = ()
    points: float = 0.0
    problem: str = ""


class Applied(_Fact):
    """What came of the budget: the file that the learner's own engine made."""

    points: float = 0.0
    budget_bytes: int = 0
    file_bytes: int | None = None
    points_lost: float | None = None
    stood_in: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Grade(_Fact):
    """One submission, graded. ``prints`` are what likeness is found by, for each function."""

    learner: str
    source: str
    failure: str = ""
    outcomes: tuple[Outcome, ...] = ()
    technical: float = 0.0
    understanding: Understanding = Understanding()
    applied: Applied = Applied()
    notes: tuple[str, ...] = ()
    prints: dict[str, tuple[int, ...]] = {}
    isolation: str = ""
    seconds: float = 0.0

    @property
    def automatic(self) -> float:
        """The automatic points, of 100: the same as nbgrader's."""
        return sum(outcome.earned for outcome in self.outcomes)


def write_grade(path: Path, grade: Grade) -> None:
    """Keep ``grade`` at ``path``."""
    write_text(path, grade.model_dump_json())


def read_grade(path: Path) -> Grade | None:
    """The grade kept at ``path``, if there is a sound one."""
    try:
        return Grade.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
