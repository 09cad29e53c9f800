"""Judge a journal: guesses made before the measurement, and conclusions that agree with it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tinypress_course.grade.result import Judged, Understanding
from tinypress_course.grade.rubric import Range, Tradeoffs
from tinypress_course.journal import Journal, Value

_EITHER = " or "


def judge_journal(journal: Journal, rubric: Tradeoffs) -> Understanding:
    """What ``journal`` is worth; the teacher's mark is not in it."""
    implausible = tuple(_implausible(journal, rubric.plausible))
    predictions = tuple(
        _prediction(journal, step, name) for step, names in rubric.predictions.names.items() for name in names
    )
    claims = tuple(
        _claim(journal, step, name, rubric) for step, names in rubric.claims.names.items() for name in names
    )
    steps = [[p.counts for p in predictions if p.step == step] for step in rubric.predictions.names]
    guessed = sum(sum(step) / len(step) for step in steps) / len(steps)
    right = sum(claim.counts for claim in claims) / len(claims)
    points = rubric.predictions.points * guessed + rubric.claims.points * right
    return Understanding(predictions=predictions, claims=claims, implausible=implausible, points=points)


def _implausible(journal: Journal, plausible: dict[str, Range]) -> Iterator[str]:
    for name, honest in plausible.items():
        measured = journal.last("measurement", name)
        if measured is not None and not honest.holds(measured.value):
            yield f"{name} is recorded as {_short(measured.value)}, and honest runs give {_words(honest)}"


def _prediction(journal: Journal, step: int, name: str) -> Judged:
    if journal.predicted(name) is not None:
        return Judged(step=step, name=name, counts=True, why="written down before it was measured")
    late = journal.last("prediction", name) is not None
    return Judged(
        step=step, name=name, counts=False, why="written down afterwards" if late else "not written down"
    )


def _claim(journal: Journal, step: int, name: str, rubric: Tradeoffs) -> Judged:
    claimed, measured = journal.last("claim", name), journal.last("measurement", name)
    honest = rubric.plausible.get(name)
    if claimed is None:
        why, counts = "not claimed", False
    elif measured is None:
        why, counts = f"{_short(claimed.value)} is claimed, and nothing was measured", False
    elif honest is not None and not honest.holds(measured.value):
        why, counts = f"the measurement, {_short(measured.value)}, is not one that an honest run gives", False
    else:
        counts = agrees(claimed.value, measured.value, rubric.claims.tolerance)
        why = f"claimed {_short(claimed.value)}, measured {_short(measured.value)}"
    return Judged(step=step, name=name, counts=counts, why=why)


def agrees(claimed: Value, measured: Value, tolerance: float) -> bool:
    """Whether a claim says what was measured: numbers but for ``tolerance``, words of "a or b" either one."""
    if isinstance(claimed, bool) or isinstance(measured, bool):
        return claimed is measured
    if isinstance(claimed, str) and isinstance(measured, str):
        said = {word.strip() for word in claimed.split(_EITHER)}
        return said <= {word.strip() for word in measured.split(_EITHER)}
    if isinstance(claimed, str) or isinstance(measured, str):
        return False
    try:
        return math.isclose(claimed, measured, rel_tol=tolerance)
    except OverflowError:  # a whole number beyond every float
        return False


def _words(honest: Range) -> str:
    if honest.words:
        return _EITHER.join(map(str, honest.words))
    if honest.low is None or honest.high is None:
        return f"at least {honest.low:g}" if honest.low is not None else f"at most {honest.high:g}"
    return f"{honest.low:g} to {honest.high:g}"


def _short(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)[:60]
