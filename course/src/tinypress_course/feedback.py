"""From an answer that broke a promise to the mistake behind it, told without giving the right answer."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import tinypress
from tinypress_course import probes
from tinypress_course.checks.all import ALL_CHECKS
from tinypress_course.checks.base import Answer, Case, Verdict, judge
from tinypress_course.checks.judging import close
from tinypress_course.misconceptions.all import ALL_MISCONCEPTIONS
from tinypress_course.misconceptions.base import Misconception
from tinypress_course.models import Plain

METRICS = ("count_parameters", "calculate_model_size", "analyze_weight_distribution")
NOT_WRITTEN = "NotImplementedError"


@dataclass(frozen=True)
class Feedback:
    """Why ``function`` is not right yet: the promise it breaks, on the smallest call that shows it."""

    function: str
    promise: str
    shown: str
    problem: str
    named: tuple[Misconception, ...] = ()
    broken: int = 1
    promises: int = 1
    written: bool = True


def evaluate(
    function: str, functions: Mapping[str, Any], seed: int, *, hidden: bool = False
) -> Feedback | None:
    """Judge one function of ``functions`` in this process; None where it keeps all its promises."""

    def call(name: str, inputs: Mapping[str, Plain]) -> Answer:
        with contextlib.redirect_stdout(io.StringIO()):
            return probes.call(functions, name, inputs)

    return feedback_on(judge(function, ALL_CHECKS, call, seed, hidden=hidden))


def feedback_on(verdict: Verdict) -> Feedback | None:
    """What to tell about a verdict; None where every promise was kept."""
    if verdict.right:
        return None
    first = verdict.failures[0]
    return Feedback(
        verdict.function,
        first.check.promise,
        first.case.shown,
        first.problem,
        named=diagnose(verdict, ALL_MISCONCEPTIONS),
        broken=len(verdict.failures),
        promises=len(verdict.failures) + len(verdict.kept),
        written=first.answer.get("error") != NOT_WRITTEN,
    )


def diagnose(verdict: Verdict, misconceptions: tuple[Misconception, ...]) -> tuple[Misconception, ...]:
    """The known mistakes that give the learner's answers: those that explain most failures, ties together.

    A mistake is tried on the same input by the same probe. It counts only where it breaks the promise too.
    """
    explained: dict[int, int] = {}
    for at, known in enumerate(misconceptions):
        if known.function == verdict.function:
            explained[at] = sum(
                _explains(known, case, answer, failure.check.wrong)
                for failure in verdict.failures
                for case, answer in ((failure.case, failure.answer), *failure.more)
            )
    best = max(explained.values(), default=0)
    found = [misconceptions[at] for at, cases in explained.items() if cases == best and best]
    return tuple({known.says: known for known in found}.values())


def _explains(known: Misconception, case: Case, answer: Answer, wrong: Any) -> bool:
    theirs = probes.call(standing_in(known), known.function, case.inputs)
    return _alike(theirs, answer, known.compares) and wrong(case, theirs) is not None


def standing_in(known: Misconception) -> Mapping[str, Any]:
    """The functions of the module with the mistake in its place; all others are the toolkit's."""
    right = {name: getattr(tinypress, name) for name in probes.PROBES if hasattr(tinypress, name)}
    if known.function in METRICS:
        return {**right, "CompressionMetrics": SimpleNamespace(**{known.function: known.implementation})}
    return {**right, "CompressionMetrics": tinypress.CompressionMetrics, known.function: known.implementation}


def _alike(left: Plain, right: Plain, keys: tuple[str, ...] = ()) -> bool:
    if probes.is_error(left) or probes.is_error(right):
        return (
            probes.is_error(left)
            and probes.is_error(right)
            and left["error"] == right["error"] != NOT_WRITTEN
        )
    return all(_equal(left.get(key), right.get(key)) for key in keys or {*left, *right})


def _equal(left: Plain, right: Plain) -> bool:
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(_equal(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(_equal, left, right))
    return close(left, right, 1e-5)


def as_text(feedback: Feedback) -> str:
    """The feedback for people, in a few lines."""
    if not feedback.written:
        return f"{feedback.function} is not written yet."
    lines = [
        f"{feedback.function} {feedback.promise}: not yet.",
        f"  Try it:  {feedback.shown}",
        f"  {_sentence(feedback.problem)}",
    ]
    if len(feedback.named) == 1:
        lines.append(f"  This looks like a known mistake. {feedback.named[0].says}")
    elif feedback.named:
        lines.append("  Known mistakes that give the same (this input cannot tell them apart):")
        lines += [f"    - {known.says}" for known in feedback.named]
    if feedback.broken > 1:
        lines.append(f"  {feedback.broken} of {feedback.promises} promises are broken; this is the first.")
    return "\n".join(lines)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
