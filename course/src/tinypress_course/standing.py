"""Where a learner stands: every function of the module judged as it is now, with its points."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tinypress_course.attempts import read_attempts, with_attempt, write_attempts
from tinypress_course.cells import Cell, read_cells, run_cells
from tinypress_course.checks.all import ALL_CHECKS
from tinypress_course.errors import CourseError, SourceError
from tinypress_course.feedback import METRICS, Feedback, evaluate, unreadable
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
    unknown = [name for name in module.functions if all(check.function != name for check in ALL_CHECKS)]
    if unknown:
        raise CourseError(
            f"{work.parent / 'module.yaml'}: there is no check for {unknown[0]!r}. Restore the file"
        )
    cells = read_cells(work)
    with torch_as_it_was():
        namespace, broken = run_cells(cells, work.name)
    broken |= _missing(module, namespace, broken)
    texts, points = texts_of(cells, module.functions), points_of(cells)
    attempts, results = read_attempts(work.parent), []
    for function in functions if functions is not None else module.functions:
        note(function)
        if function in broken:
            feedback = unreadable(function, str(broken[function]))
            result = Result(function, module.step_of(function).number, points.get(function, 0.0), feedback)
        else:
            with torch_as_it_was():
                (result,) = judged(module, [function], namespace, points)
        results.append(result)
        if result.written and not result.holds:
            attempts = with_attempt(attempts, function, texts.get(function, ""))
    write_attempts(work.parent, attempts)
    return results


@contextlib.contextmanager
def torch_as_it_was() -> Iterator[None]:
    """What a learner's code sets for all of torch is taken back, so that no other function is blamed for it."""
    dtype, threads, gradients = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
        torch.set_grad_enabled(gradients)


def _missing(
    module: Module, namespace: Mapping[str, Any], broken: Mapping[str, SourceError]
) -> dict[str, SourceError]:
    """Functions that the file no longer has, each with where it belongs."""
    metrics = namespace.get("CompressionMetrics")
    missing = {}
    for name in module.functions:
        if name in METRICS[1:] and METRICS[0] in broken:
            missing[name] = SourceError(
                "it belongs to the class CompressionMetrics, whose cell cannot be executed"
            )
        elif name not in broken and not (hasattr(metrics, name) if name in METRICS else name in namespace):
            missing[name] = SourceError(
                f"the file has no function of that name. Give the cell {name} its function back"
            )
    return missing


def texts_of(cells: Iterable[Cell], functions: Iterable[str]) -> dict[str, str]:
    """The text of each function's own cell."""
    known = set(functions)
    return {cell.grade_id: cell.text for cell in cells if cell.role == "solution" and cell.grade_id in known}
