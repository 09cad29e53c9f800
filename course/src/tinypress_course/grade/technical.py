"""The automatic points: every function judged here, called in the sandbox, with inputs drawn anew.

All checks of a function, the hidden ones too, decide about all of its points, as one test cell of nbgrader does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from tinypress_course.checks.all import ALL_CHECKS
from tinypress_course.checks.base import Answer, Verdict, judge
from tinypress_course.feedback import METRICS, as_text, feedback_on
from tinypress_course.grade.child import Jail, JailBroken, Lost, Unstarted
from tinypress_course.grade.result import Named, Outcome
from tinypress_course.grade.rubric import Limits
from tinypress_course.grade.work import Work
from tinypress_course.models import Plain
from tinypress_course.module import Module

_CELL_OF_CLASS = "count_parameters"  # the cell in which the class of the three metrics begins


def grade_functions(
    work: Work,
    module: Module,
    points: Mapping[str, float],
    new_jail: Callable[[], Jail],
    seed: int,
    limits: Limits,
    note: Callable[[str], None] = lambda function: None,
) -> Iterator[Outcome]:
    """Judge one function after the other, each in a child of its own; a sandbox that was broken is started again.

    ``new_jail`` gives the sandbox, and a new one where that one is gone; ``note`` hears each name before it is judged.
    """
    until = time.monotonic() + limits.technical_seconds
    hopeless = ""
    for function in module.functions:
        note(function)
        if all(check.function != function for check in ALL_CHECKS):
            found = _Found(keeps=True, text="there is no check for it yet")
        elif hopeless:
            found = _Found(text=f"{function}: not judged. {hopeless}")
        elif time.monotonic() < until:
            try:
                found = _judged(function, work, new_jail, seed, until)
            except Unstarted as unstarted:  # and it would not be executed for the next function either
                hopeless = f"The process that executes the file {unstarted}."
                found = _Found(text=f"{function}: not judged. {hopeless}")
        else:
            found = _Found(text=f"{function}: not judged. The time for this learner was used up.")
        yield Outcome(
            function=function,
            step=module.step_of(function).number,
            points=points[function],
            keeps=found.keeps,
            written=found.written,
            text=found.text,
            named=found.named,
        )


@dataclass(frozen=True)
class _Found:
    """What a function's answers decide about."""

    keeps: bool = False
    written: bool = True
    text: str = ""
    named: tuple[Named, ...] = ()


class _Watched:
    """Calls a function in the sandbox; once its process is lost every call fails, and ``lost`` says why and where."""

    def __init__(self, session: Callable[[str, Mapping[str, Plain]], Answer]) -> None:
        self._session = session
        self.lost = ""

    def __call__(self, function: str, inputs: Mapping[str, Plain]) -> Answer:
        if not self.lost:
            try:
                return self._session(function, inputs)
            except Lost as lost:
                self.lost = str(lost)
        return {"error": "Lost", "kinds": ["Lost"], "message": self.lost}


def _judged(function: str, work: Work, new_jail: Callable[[], Jail], seed: int, until: float) -> _Found:
    try:
        with new_jail().session(work.pieces, until) as session:
            call = _Watched(session.call)
            verdict = judge(function, ALL_CHECKS, call, seed, hidden=True)
            failed = {**work.broken, **session.failed}
        told = feedback_on(verdict, seed)
    except Unstarted:
        raise
    except (Lost, JailBroken) as lost:
        return _Found(text=f"{function}: not judged. Its process {lost}.")
    except Exception as error:  # an answer made to break the judge
        return _Found(text=f"{function}: its answers cannot be judged ({type(error).__name__}).")
    if call.lost:
        where = _where_lost(verdict)
        return _Found(
            text=f"{function}: not judged to the end.\n  Try it:  {where}\n  Its process {call.lost}."
        )
    if told is None:
        return _Found(keeps=True)
    text, written = as_text(told), told.written
    for name in _cells_of(function):
        if name in failed:
            text, written = f"{text}\n  The cell {name} stops with {failed[name]}.", True
    named = tuple(Named(name=known.name, says=known.says) for known in told.named)
    return _Found(written=written, text=text, named=named)


def _cells_of(function: str) -> tuple[str, ...]:
    return (function, _CELL_OF_CLASS) if function in METRICS else (function,)


def _where_lost(verdict: Verdict) -> str:
    lost = (failure.case for failure in verdict.failures if failure.answer.get("error") == "Lost")
    return next((case.shown for case in lost), "any call")
