"""Where a learner stands: every function of the module judged as it is now, with its points."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinypress_course.attempts import read_attempts, with_attempt, write_attempts
from tinypress_course.cells import Cell, read_cells, run_cells
from tinypress_course.feedback import Feedback, evaluate, unreadable
from tinypress_course.module import Module

SEED = 0


@dataclass(frozen=True)
class Result:
    """One function: its step, its points, and what is wrong with it (None where every promise holds)."""

    function: str
    step: int
    points: float
    feedback: Feedback | None

    @property
    def holds(self) -> bool:
        """Whether every promise that the learner can see is kept."""
        return self.feedback is None

    @property
    def written(self) -> bool:
        """Whether there is anything but the exercise's own placeholder."""
        return self.feedback is None or self.feedback.written


def points_of(cells: Iterable[Cell]) -> dict[str, float]:
    """The points of each function, by its test cell."""
    return {cell.grade_id.removeprefix("test_"): cell.points for cell in cells if cell.role == "test"}


def judged(
    module: Module, functions: Iterable[str], namespace: Mapping[str, Any], points: Mapping[str, float]
) -> Iterator[Result]:
    """Judge ``functions`` one by one, as their promises are tried."""
    for function in functions:
        feedback = evaluate(function, namespace, SEED)
        yield Result(function, module.step_of(function).number, points.get(function, 0.0), feedback)


def stand(
    module: Module,
    work: Path,
    functions: Iterable[str] | None = None,
    note: Callable[[str], None] = lambda function: None,
) -> list[Result]:
    """Execute the learner's file ``work`` and judge ``functions``, all by default; attempts are counted.

    ``note`` hears the name of each function before it is judged.

    Raises:
        CourseError: the file cannot be read or executed.
    """
    cells = read_cells(work)
    namespace, broken = run_cells(cells, work.name)
    texts = texts_of(cells, module.functions)
    attempts, results = read_attempts(work.parent), []
    for function in functions if functions is not None else module.functions:
        note(function)
        if function in broken:
            points = points_of(cells).get(function, 0.0)
            feedback = unreadable(function, str(broken[function]))
            result = Result(function, module.step_of(function).number, points, feedback)
        else:
            (result,) = judged(module, [function], namespace, points_of(cells))
        results.append(result)
        if result.written and not result.holds:
            attempts = with_attempt(attempts, function, texts.get(function, ""))
    write_attempts(work.parent, attempts)
    return results


def texts_of(cells: Iterable[Cell], functions: Iterable[str]) -> dict[str, str]:
    """The text of each function's own cell."""
    known = set(functions)
    return {cell.grade_id: cell.text for cell in cells if cell.role == "solution" and cell.grade_id in known}
