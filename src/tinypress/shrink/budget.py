"""The most that a pruned network may cost."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from tinypress.arguments import is_number
from tinypress.errors import InputError, TinypressError
from tinypress.shrink.costs import Cost

Limit = tuple[Cost | Literal["latency_ms"], float]
"""What is limited, and to how much."""


@dataclass(frozen=True)
class Budget:
    """The most that the network may cost; give one of the four.

    ``parameters``, ``bytes`` and ``macs`` are whole numbers above 1, or fractions below 1 of today's cost.
    ``latency_ms`` is what ``measure`` returns, in milliseconds of the runtime that will run the network.
    """

    parameters: float | None = None
    bytes: float | None = None
    macs: float | None = None
    latency_ms: float | None = None
    measure: Callable[[nn.Module], float] | None = field(default=None, repr=False)


AMOUNT = "a whole number above 1, or a fraction below 1 of what there is now"


def is_amount(most: float) -> bool:
    """Whether a positive number is a whole number above 1, or a fraction below it."""
    return 0 < most < 1 or (1 < most < 1e300 and most == int(most))


def check_positive(call: str, name: str, most: object) -> None:
    """Raises InputError where ``most`` is no number above 0."""
    if not is_number(most) or not 0 < (most if isinstance(most, int) else float(most)) < 1e300:
        raise InputError(call, f"the budget of {name} is {most!r}", "Give a number above 0")


def limit_of(call: str, budget: Budget | None) -> Limit | None:
    """The one cost that ``budget`` names, checked.

    Raises:
        InputError: it names none or several, a number out of range, or a latency without how to measure it.
    """
    if budget is None:
        return None
    named = {
        "parameters": budget.parameters, "bytes": budget.bytes, "macs": budget.macs, "latency_ms": budget.latency_ms
    }  # fmt: skip
    given = [(name, most) for name, most in named.items() if most is not None]
    if len(given) != 1:
        raise InputError(call, f"the budget names {len(given)} costs", "Name one, such as Budget(macs=0.5)")
    name, most = given[0]
    check_positive(call, name, most)
    if name != "latency_ms" and not is_amount(most):
        raise InputError(call, f"the budget of {name} is {most!r}", f"Give {AMOUNT}")
    if (name == "latency_ms") != (budget.measure is not None):
        raise InputError(call, "latency_ms and measure go together", "Give both, or neither")
    if budget.measure is not None and not callable(budget.measure):
        raise InputError(
            call, f"measure is a {type(budget.measure).__name__}", "Give a function of the network"
        )
    return name, float(most)  # type: ignore[return-value]


def measured(call: str, measure: Callable[[nn.Module], float], model: nn.Module) -> float:
    """What the user's ``measure`` says of ``model``, checked.

    Raises:
        InputError: it fails, or returns no number above 0.
    """
    try:
        value: object = measure(model)
    except TinypressError:
        raise
    except Exception as error:
        raise InputError(call, f"measure failed ({type(error).__name__}: {error})", "Mend it") from error
    if not is_number(value) or not 0 < value <= sys.float_info.max:
        raise InputError(call, f"measure returned {value!r}", "Return milliseconds as a number above 0")
    return float(value)
