"""Mixed precision: bits of each layer under a budget of bytes or milliseconds, by what it loses (``sensitivity.py``).

Which layer takes how many bits is solved exactly (``allocate.py``; ``allocate_both.py`` for two budgets), as in HAWQ-V3
(Yao et al. 2021, arXiv:2011.10680, §3.4) by an integer program over measured losses and latencies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tinypress.arguments import is_number
from tinypress.errors import InputError
from tinypress.quantize.allocate import allocate
from tinypress.quantize.allocate_both import allocate_both
from tinypress.quantize.sensitivity import FLOAT, LayerBits


@dataclass(frozen=True)
class MixedBits:
    """``bits`` of each layer that is quantized (one that is left out stays float), the bytes of all weights that could
    be, quantized or not, the sum of what is lost and, where layers were timed, of their milliseconds."""

    bits: dict[str, int]
    weight_bytes: int
    loss: float
    latency_ms: float | None = None


def choose_bits(
    measured: Sequence[LayerBits],
    budget_bytes: int | float | None = None,
    *,
    budget_ms: float | None = None,
    allow_float: bool = True,
) -> MixedBits:
    """The bits of each layer with which the least is lost and all weights together meet the budget, or both.

    Args:
        measured: from ``measure_sensitivity``; with ``budget_ms`` timed by ``measure_bit_latencies``.
        budget_bytes: a whole number, or a fraction (below 1) of what the weights take as floats.
        budget_ms: milliseconds of all layers together, each timed alone, for one sample.
        allow_float: whether a layer may stay float.

    Raises:
        InputError: there is no budget, or none that can be met, and with what it could be.
    """
    call = (
        f"choose_bits({len(measured)} measurements, budget_bytes={budget_bytes!r}, budget_ms={budget_ms!r})"
    )
    by_layer: dict[str, list[LayerBits]] = {}
    for each in measured:
        if allow_float or each.bits != FLOAT:
            by_layer.setdefault(each.layer, []).append(each)
    budgets: list[int] = []
    costs: list[list[list[int]]] = []
    if budget_bytes is not None:
        budgets.append(_bytes(call, measured, budget_bytes, by_layer))
        costs.append([[each.weight_bytes for each in options] for options in by_layer.values()])
    if budget_ms is not None:
        costs.append([[_nanoseconds(call, each) for each in options] for options in by_layer.values()])
        budgets.append(_most_time(call, budget_ms, costs[-1]))
    if not budgets:
        raise InputError(call, "there is no budget", "Give budget_bytes or budget_ms")
    lost = [[each.loss for each in options] for options in by_layer.values()]
    if len(budgets) == 1:
        one = [list(zip(cost, loss, strict=True)) for cost, loss in zip(costs[0], lost, strict=True)]
        picks = allocate(one, budgets[0])
    else:
        both = [
            list(zip(cost, other, loss, strict=True)) for cost, other, loss in zip(*costs, lost, strict=True)
        ]
        picks = allocate_both(both, (budgets[0], budgets[1]))
    chosen = [layer[pick] for layer, pick in zip(by_layer.values(), picks, strict=True)]
    times = [each.latency_ms for each in chosen]
    return MixedBits(
        {each.layer: each.bits for each in chosen if each.bits != FLOAT},
        sum(each.weight_bytes for each in chosen),
        sum(each.loss for each in chosen),
        None if None in times else math.fsum(time for time in times if time is not None),
    )


def _bytes(
    call: str,
    measured: Sequence[LayerBits],
    budget_bytes: int | float,
    by_layer: Mapping[str, Sequence[LayerBits]],
) -> int:
    whole = sum(each.weight_bytes for each in measured if each.bits == FLOAT)
    if isinstance(budget_bytes, bool) or not budget_bytes > 0:
        raise InputError(
            call, "the budget must be positive", "Give bytes, or a fraction of the float weights"
        )
    budget = int(budget_bytes * whole) if budget_bytes < 1 else int(budget_bytes)
    least = sum(min(each.weight_bytes for each in options) for options in by_layer.values())
    if least > budget:
        raise InputError(
            call,
            f"with the fewest bits that were measured the weights take {least} bytes, and the budget is {budget}",
            f"Give {least} or more, or measure fewer bits",
        )
    return budget


def _nanoseconds(call: str, each: LayerBits) -> int:
    if each.latency_ms is None:
        raise InputError(
            call, f"layer {each.layer!r} was not timed at {each.bits} bits", "Give measure_bit_latencies(...)"
        )
    return math.ceil(each.latency_ms * 1e6)


def _most_time(call: str, budget_ms: float, costs: Sequence[Sequence[int]]) -> int:
    if not is_number(budget_ms) or not 0 < budget_ms < math.inf:
        raise InputError(call, "the budget must be positive", "Give milliseconds")
    budget, least = int(budget_ms * 1e6), sum(min(options) for options in costs)
    if least > budget:
        raise InputError(
            call,
            f"the fastest of what was measured takes {least / 1e6:.4g} ms together",
            f"Give {math.ceil(least / 1e2) / 1e4:g} or more",
        )
    return budget
