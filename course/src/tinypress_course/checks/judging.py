"""What judges have in common: errors that were promised, answers that are none, numbers close enough."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tinypress_course.checks.base import Answer, Case
from tinypress_course.probes import is_error

Judge = Callable[[Case, Answer], str | None]
_PROMISED = {"ValueError", "TypeError"}


def seen(judge: Judge) -> Judge:
    """``judge`` for answers that are no error; what it cannot make sense of is wrong as well."""

    def careful(case: Case, answer: Answer) -> str | None:
        if is_error(answer):
            return raised(answer)
        try:
            return judge(case, answer)
        except Exception as error:  # an answer of another shape than promised can break a judge anywhere
            return f"what came back cannot be read as promised ({type(error).__name__}: {error})"

    return careful


def refuses(*words: str) -> Judge:
    """Right where a ValueError or TypeError was raised whose text holds one of ``words``, if there are any."""

    def judge(case: Case, answer: Answer) -> str | None:
        if not is_error(answer):
            return "it gave an answer; a ValueError that tells the value was promised"
        if answer["error"] == "NotImplementedError":
            return raised(answer)
        if not _PROMISED & set(answer["kinds"]):
            return f"it raised {answer['error']} ({answer['message'][:80]}); a ValueError was promised"
        if words and not any(word in answer["message"] for word in words):
            return f"its error says {answer['message'][:80]!r} and not what was given ({words[0]})"
        return None

    return judge


def raised(answer: Answer) -> str:
    """An error that was not promised, in words."""
    if answer["error"] == "NotImplementedError":
        return "it is not written yet"
    if answer["error"] == "SystemExit":
        return "it ended the program (SystemExit)"
    return f"it raised {answer['error']}: {answer['message'][:160]}"


def close(left: Any, right: Any, tolerance: float = 1e-5) -> bool:
    """Whether two numbers, or two tensors of one shape, are equal but for rounding."""
    if isinstance(left, Tensor) or isinstance(right, Tensor):
        if not (isinstance(left, Tensor) and isinstance(right, Tensor)) or left.shape != right.shape:
            return False
        return torch.allclose(
            left.double(), right.double(), rtol=tolerance, atol=tolerance * 1e-2, equal_nan=True
        )
    if isinstance(left, bool) or isinstance(right, bool) or not isinstance(left, int | float):
        return type(left) is type(right) and bool(left == right)
    if not isinstance(right, int | float):
        return False
    if left != left or right != right:
        return left != left and right != right
    try:
        return math.isclose(left, right, rel_tol=tolerance, abs_tol=tolerance * 1e-2)
    except OverflowError:  # a whole number beyond all floats
        return left == right


def same(left: Any, right: Any) -> bool:
    """Whether two pieces of plain data are equal, tensors to the last bit."""
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        return left.shape == right.shape and left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and bool(left == right)


def short(tensor: Tensor, most: int = 8) -> str:
    """A small tensor as a person would write it; of a larger one only the shape."""
    if tensor.numel() > most:
        return f"[{' x '.join(map(str, tensor.shape))}]"
    return str(_rounded(tensor.tolist()))


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    number = float(f"{value:.4g}")
    return int(number) if number.is_integer() else number


def number(value: object) -> str:
    """A number in at most five digits."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    return f"{value:.5g}" if isinstance(value, float) else str(value)[:80]
