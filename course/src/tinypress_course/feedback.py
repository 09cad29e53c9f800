"""From an answer that broke a promise to the mistake behind it, told without giving the right answer."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import tinypress
from tinypress_course import probes
from tinypress_course.checks.all import ALL_CHECKS
from tinypress_course.checks.base import Answer, Case, Check, Verdict, first_failure, judge
from tinypress_course.checks.judging import close
from tinypress_course.misconceptions.all import ALL_MISCONCEPTIONS
from tinypress_course.misconceptions.base import Misconception
from tinypress_course.models import Plain

METRICS = ("count_parameters", "calculate_model_size", "analyze_weight_distribution")
NOT_WRITTEN = "NotImplementedError"
MOST_NAMED = 4
REFUSES = "refuses"  # how promises about bad input begin


@dataclass(frozen=True)
class Feedback:
    """Why ``function`` is not right yet: the promise it breaks, on the smallest call that shows it."""

    function: str
    promise: str
    shown: str
    problem: str
    named: tuple[Misconception, ...] = ()
    unkept: tuple[str, ...] = ()
    promises: int = 1
    written: bool = True


def evaluate(
    function: str, functions: Mapping[str, Any], seed: int, *, hidden: bool = False
) -> Feedback | None:
    """Judge one function of ``functions`` in this process; None where it keeps all its promises."""
    answers: dict[int, tuple[Mapping[str, Plain], Answer]] = {}  # of inputs that several promises share

    def call(name: str, inputs: Mapping[str, Plain]) -> Answer:
        if id(inputs) not in answers:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                answers[id(inputs)] = inputs, probes.call(functions, name, inputs)
        return answers[id(inputs)][1]

    return feedback_on(judge(function, ALL_CHECKS, call, seed, hidden=hidden), seed)


def unreadable(function: str, problem: str) -> Feedback:
    """The feedback on a cell that Python cannot execute."""
    return Feedback(function, "can be executed", "", problem)


def feedback_on(verdict: Verdict, seed: int) -> Feedback | None:
    """What to tell about a verdict; None where every promise was kept."""
    if verdict.right:
        return None
    first = verdict.failures[0]
    written = first.answer.get("error") != NOT_WRITTEN
    return Feedback(
        verdict.function,
        first.check.promise,
        first.case.shown,
        first.problem,
        named=_telling(diagnose(verdict, ALL_MISCONCEPTIONS, seed)) if written else (),
        unkept=tuple(failure.check.promise for failure in verdict.failures),
        promises=len(verdict.failures) + len(verdict.kept),
        written=written,
    )


def _telling(named: tuple[Misconception, ...]) -> tuple[Misconception, ...]:
    """``named``, or nothing where so many fit that none of them says anything."""
    return named if len(named) <= MOST_NAMED else ()


def diagnose(
    verdict: Verdict, misconceptions: tuple[Misconception, ...], seed: int
) -> tuple[Misconception, ...]:
    """The known mistakes that give the learner's answers: those that explain most failures, ties together.

    A mistake is tried on the same input by the same probe. It counts only where it breaks the promise that is shown,
    with the learner's own answer, and keeps every promise about good input that the learner keeps.
    """
    shown = [
        (failure.check, case, answer)
        for failure in verdict.failures
        for case, answer in ((failure.case, failure.answer), *failure.more)
    ]
    answers: Answers = {}
    known = [each for each in misconceptions if each.function == verdict.function]
    # those that explain the smallest failure come first, so that the others are soon out of the running
    ranked = sorted(known, key=lambda each: not _explains(each, *shown[0], answers))
    best, explained = 1, {}
    for each in ranked:
        if not _explains(each, *shown[0], answers):
            break
        explained[id(each)] = _explained(each, shown, best, answers)
        best = max(best, explained[id(each)])
    named = [each for each in known if explained.get(id(each)) == best]
    return tuple({each.says: each for each in named if _keeps(each, verdict.kept, seed)}.values())


def _keeps(known: Misconception, kept: tuple[str, ...], seed: int) -> bool:
    """Whether the mistake keeps these promises; one that breaks them is another than the learner's."""
    functions = standing_in(known)
    checks = [
        check for check in ALL_CHECKS
        if check.function == known.function and check.promise in kept and not check.promise.startswith(REFUSES)
    ]  # fmt: skip
    call = partial(probes.call, functions)
    return all(first_failure(check, call, seed, most=1) is None for check in checks)


Answers = dict[tuple[int, int], Answer]  # by the identities of an implementation and of a case


def _explained(
    known: Misconception, shown: list[tuple[Check, Case, Answer]], least: int, answers: Answers
) -> int:
    """On how many of ``shown`` the mistake gives the learner's answer; too few where it cannot reach ``least``."""
    count = 0
    for at, each in enumerate(shown):
        if count + len(shown) - at < least:
            break
        count += _explains(known, *each, answers)
    return count


def _explains(known: Misconception, check: Check, case: Case, answer: Answer, answers: Answers) -> bool:
    def of(implementation: Callable[..., Any]) -> Answer:
        key = id(implementation), id(case)
        if key not in answers:
            functions = _standing_in(known.function, implementation)
            answers[key] = probes.call(functions, known.function, case.inputs)
        return answers[key]

    if known.right is not None and _alike(known, case, of(known.right), answer):
        return False
    theirs = of(known.implementation)
    return _alike(known, case, theirs, answer) and check.wrong(case, theirs) is not None


def standing_in(known: Misconception) -> Mapping[str, Any]:
    """The functions of the module with the mistake in its place; all others are the toolkit's."""
    return _standing_in(known.function, known.implementation)


def _standing_in(function: str, implementation: Callable[..., Any]) -> Mapping[str, Any]:
    right = {name: getattr(tinypress, name) for name in probes.PROBES if hasattr(tinypress, name)}
    if function in METRICS:
        return {**right, "CompressionMetrics": SimpleNamespace(**{function: implementation})}
    return {**right, "CompressionMetrics": tinypress.CompressionMetrics, function: implementation}


def _alike(known: Misconception, case: Case, left: Answer, right: Answer) -> bool:
    if probes.is_error(left) or probes.is_error(right):
        return probes.is_error(left) and probes.is_error(right) and _same_error(left, right)
    if known.reads is not None:
        try:
            return _equal(known.reads(case, left), known.reads(case, right))
        except Exception:  # an answer of another shape than promised can break a reading anywhere
            return False
    return all(_equal(left.get(key), right.get(key)) for key in known.compares or {*left, *right})


def _same_error(left: Answer, right: Answer) -> bool:
    """Whether two errors are alike; of torch's own, which stand for many mistakes, the text tells which."""
    if left["error"] == "RuntimeError":
        return bool(right["error"] == "RuntimeError" and left["message"] == right["message"])
    return bool(left["error"] == right["error"] != NOT_WRITTEN)


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
    lines = [f"{feedback.function} {feedback.promise}: not yet."]
    if feedback.shown:
        lines.append(f"  Try it:  {feedback.shown}")
    lines.append(f"  {_sentence(feedback.problem) if feedback.shown else feedback.problem}")
    if len(feedback.named) == 1:
        lines.append(f"  This may be a known mistake. {feedback.named[0].says}")
    elif feedback.named:
        lines.append("  Known mistakes that give the same (this input cannot tell them apart):")
        lines += [f"    - {known.says}" for known in feedback.named]
    if len(feedback.unkept) > 1:
        lines.append(
            f"  {len(feedback.unkept)} of {feedback.promises} promises are broken; this is the first."
        )
    return "\n".join(lines)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
