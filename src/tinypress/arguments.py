"""What counts as a number among the arguments of a call: numpy's numbers do, truth values do not."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TypeGuard


def is_number(value: object) -> TypeGuard[float]:
    """True for a real number, NaN and infinity included."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_whole(value: object) -> TypeGuard[int]:
    """True for a whole number."""
    return isinstance(value, Integral) and not isinstance(value, bool)
