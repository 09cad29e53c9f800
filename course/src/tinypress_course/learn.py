"""What the module's own cells call: check a function, write down a guess, a measurement, a conclusion.

None of it is part of the learner's work, and none of it is there when that work is exported or graded.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any

from tinypress_course.feedback import METRICS, as_text, evaluate
from tinypress_course.journal import Value, read_journal, write_entries

JOURNAL = Path("journal.json")


class NotYet(AssertionError):
    """A function does not keep its promises yet; the text says which, with the smallest example."""


def _without_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Where the module runs as a script, what is not right yet is told, and not where the course found it."""
    if issubclass(kind, NotYet):
        print(error, file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _without_traceback


def check(function: Callable[..., Any], *, hidden: bool = False, seed: int = 0) -> None:
    """Try every promise of ``function`` and print that they hold.

    Raises:
        NotYet: one does not.
    """
    name = function.__name__
    functions: dict[str, Any] = {name: function}
    if name in METRICS:
        functions["CompressionMetrics"] = SimpleNamespace(**{name: function})
    feedback = evaluate(name, functions, seed, hidden=hidden)
    if feedback is not None:
        raise NotYet("\n" + as_text(feedback)) from None
    if not hidden:
        print(f"{name}: every promise holds.")


def predict(step: int, **guesses: Value) -> None:
    """Write guesses down before measuring; one that is still ``...`` is asked for again."""
    _write("prediction", step, guesses)


def record(step: int, **measured: Value) -> None:
    """Write measurements down and print each beside the guess, where there was one."""
    _write("measurement", step, measured)


def claim(step: int, **conclusions: Value) -> None:
    """Write down what you conclude; a grader compares it with what you measured."""
    _write("claim", step, conclusions)


def _write(kind: Any, step: int, values: dict[str, Any]) -> None:
    given = {name: value for name, value in values.items() if value is not ...}
    for name in (name for name in values if name not in given):
        late = "; after you have measured it does not count" if kind == "prediction" else ""
        print(f"step {step}, {name}: still to be filled in (replace the three dots){late}")
    for name, value in given.items():
        if not isinstance(value, bool | int | float | str):
            raise TypeError(f"{kind} {name}={value!r}: give a number, True or False, or a word")
        if kind == "measurement":
            print(_beside_guess(name, value))
        if kind == "claim":
            print(_beside_measured(name, value))
    write_entries(JOURNAL, kind, step, given)


def _beside_measured(name: str, value: Value) -> str:
    measured = read_journal(JOURNAL).last("measurement", name)
    return f"{name}: claimed {value}" + ("" if measured is None else f", measured {_short(measured.value)}")


def _short(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _beside_guess(name: str, value: Value) -> str:
    guess = read_journal(JOURNAL).predicted(name)
    return f"{name}: measured {_short(value)}" + ("" if guess is None else f", guessed {guess.value}")
