"""The gradebook: a row for each learner with the teacher's mark in it, as CSV, as JSON and as a page of its own.

What learners wrote (names, messages of their errors) is text in all three: a spreadsheet does not take it for a
formula, and the page escapes it.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tinypress_course.files import write_text
from tinypress_course.grade.likeness import Alike
from tinypress_course.grade.result import Grade, Named
from tinypress_course.grade.rubric import Rubric
from tinypress_course.grade.sandbox import ABOUT, Kind
from tinypress_course.grade.submission import mark_of

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "|", "%")
NOT_MARKED = "not marked yet"
COLUMNS = ("learner", "automatic points", "technical", "trade-offs", "application", "total", "of", "flags")


@dataclass(frozen=True)
class Row:
    """One learner: the grade, and the points with the teacher's mark; ``of`` is less where there is none yet."""

    grade: Grade
    tradeoffs: float
    mark: float | None
    total: float
    of: float
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Mistake:
    """A known mistake in one function, and who made it."""

    function: str
    known: Named
    learners: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """What holds for the whole class."""

    module: str
    seed: int
    isolation: Kind
    budget_bytes: int
    ignored_marks: tuple[str, ...] = ()


def rows_of(
    grades: Sequence[Grade], marks: Mapping[str, float], alike: Sequence[Alike], rubric: Rubric
) -> list[Row]:
    """The rows of the gradebook, in the order of ``grades``."""
    return [_row(grade, mark_of(marks, grade.learner), alike, rubric) for grade in grades]


def _row(grade: Grade, mark: float | None, alike: Sequence[Alike], rubric: Rubric) -> Row:
    teacher = rubric.tradeoffs.teacher.points
    tradeoffs = grade.understanding.points + (mark or 0.0) * teacher
    return Row(
        grade=grade,
        tradeoffs=tradeoffs,
        mark=mark,
        total=grade.technical + tradeoffs + grade.applied.points,
        of=rubric.points - (teacher if mark is None else 0.0),
        flags=tuple(_flags(grade, mark, alike)),
    )


def _flags(grade: Grade, mark: float | None, alike: Sequence[Alike]) -> list[str]:
    """What the teacher should look at."""
    found = [grade.failure] if grade.failure else []
    like: dict[str, list[str]] = {}
    for each in alike:
        if each.learner == grade.learner:
            like.setdefault(each.other, []).append(f"{each.function} {each.share:.0%}")
    found += [f"like {other}: {', '.join(functions)}" for other, functions in like.items()]
    found += [f"implausible: {each}" for each in grade.understanding.implausible]
    found += [grade.understanding.problem] if grade.understanding.problem else []
    found += grade.notes
    return found + ([NOT_MARKED] if mark is None else [])


def mistakes_of(grades: Sequence[Grade]) -> list[Mistake]:
    """The known mistakes of the class, the most frequent first."""
    made: dict[tuple[str, str], tuple[Named, list[str]]] = {}
    for grade in grades:
        for outcome in grade.outcomes:
            for known in outcome.named:
                made.setdefault((outcome.function, known.name), (known, []))[1].append(grade.learner)
    found = [Mistake(function, known, tuple(who)) for (function, _), (known, who) in made.items()]
    return sorted(found, key=lambda each: (-len(each.learners), each.function, each.known.name))


def write_gradebook(out: Path, rows: Sequence[Row], run: Run, rubric: Rubric) -> None:
    """Write gradebook.csv, gradebook.json and gradebook.html into ``out``."""
    write_text(out / "gradebook.csv", as_csv(rows))
    write_text(out / "gradebook.json", json.dumps(as_data(rows, run), indent=1))
    write_text(out / "gradebook.html", as_page(rows, run, rubric))


def as_csv(rows: Sequence[Row]) -> str:
    """One line for each learner."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        numbers = (
            row.grade.automatic,
            row.grade.technical,
            row.tradeoffs,
            row.grade.applied.points,
            row.total,
            row.of,
        )
        words = [_no_formula(row.grade.learner), *(f"{number:.2f}" for number in numbers)]
        writer.writerow([*words, _no_formula("; ".join(row.flags))])
    return text.getvalue()


def _no_formula(text: str) -> str:
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return f"'{plain}" if text.startswith(_FORMULA) or plain.startswith(_FORMULA) else plain


def as_data(rows: Sequence[Row], run: Run) -> dict[str, Any]:
    """Everything in the gradebook as plain data, without the prints of likeness."""
    learners = [
        {
            **row.grade.model_dump(mode="json", exclude={"prints"}),
            "automatic": row.grade.automatic,
            "tradeoffs": row.tradeoffs,
            "mark": row.mark,
            "total": row.total,
            "of": row.of,
            "flags": list(row.flags),
        }
        for row in rows
    ]
    mistakes = [
        {
            "function": each.function,
            "name": each.known.name,
            "says": each.known.says,
            "learners": list(each.learners),
        }
        for each in mistakes_of([row.grade for row in rows])
    ]
    return {"format": 1, **asdict(run), "learners": learners, "mistakes": mistakes}


def as_page(rows: Sequence[Row], run: Run, rubric: Rubric) -> str:
    """The page, which opens without a network."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["points"] = lambda number: f"{number:.1f}".removesuffix(".0")
    return environment.get_template("gradebook.html").render(
        rows=rows,
        run=run,
        rubric=rubric,
        not_marked=NOT_MARKED,
        about_isolation=ABOUT[run.isolation],
        mistakes=mistakes_of([row.grade for row in rows]),
    )
