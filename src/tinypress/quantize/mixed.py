"""Mixed precision: bits for each layer under a budget of bytes, by what each loses (``sensitivity.py``).

Which layer takes how many bits is solved exactly (``allocate.py``), as in HAWQ-V3 (Yao et al. 2021, arXiv:2011.10680,
§3.4) by an integer program over measured losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tinypress.errors import InputError
from tinypress.quantize.allocate import allocate
from tinypress.quantize.sensitivity import FLOAT, LayerBits


@dataclass(frozen=True)
class MixedBits:
    """``bits`` of each layer that is quantized (one that is left out stays float), the bytes of all weights that could
    be, quantized or not, and the sum of what is lost."""

    bits: dict[str, int]
    weight_bytes: int
    loss: float


def choose_bits(
    measured: Sequence[LayerBits], budget_bytes: int | float, *, allow_float: bool = True
) -> MixedBits:
    """The bits of each layer with which the least is lost and all weights together take ``budget_bytes`` at most.

    Args:
        measured: from ``measure_sensitivity``.
        budget_bytes: a whole number, or a fraction (below 1) of what the weights take as floats.
        allow_float: whether a layer may stay float.

    Raises:
        InputError: the budget cannot be met, and with what it could be.
    """
    call = f"choose_bits({len(measured)} measurements, budget_bytes={budget_bytes!r})"
    by_layer: dict[str, list[LayerBits]] = {}
    for each in measured:
        if allow_float or each.bits != FLOAT:
            by_layer.setdefault(each.layer, []).append(each)
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
    options = [[(each.weight_bytes, each.loss) for each in layer] for layer in by_layer.values()]
    picks = allocate(options, budget)
    chosen = [layer[pick] for layer, pick in zip(by_layer.values(), picks, strict=True)]
    return MixedBits(
        {each.layer: each.bits for each in chosen if each.bits != FLOAT},
        sum(each.weight_bytes for each in chosen),
        sum(each.loss for each in chosen),
    )
