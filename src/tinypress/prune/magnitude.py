"""Prune the weights of one layer by magnitude: the smallest go."""

from __future__ import annotations

from torch import nn

from tinypress.errors import ModelError
from tinypress.facts import Change, Compressed
from tinypress.prune.sparsity import count_to_prune, zero_fraction
from tinypress.prune.swap import copy_with, flat_of
from tinypress.prune.weights import require_readable
from tinypress.prune.zero import zero_smallest


def prune_weights_by_magnitude(layer: nn.Module, sparsity: float) -> Compressed:
    """A copy of ``layer`` whose smallest weights are zero: exactly round(sparsity * numel) of them.

    Among equal magnitudes the earlier in row-major order is pruned first. A weight that is zero already is
    among the smallest, so that pruning to 0.9 what was pruned to 0.5 gives 0.9 in all. The bias stays.

    Han et al., "Learning both Weights and Connections for Efficient Neural Networks" (2015), section 3.

    Args:
        layer: any module with a floating-point parameter ``weight`` of any shape.
        sparsity: the fraction to set to zero, 0..1.

    Raises:
        InputError: ``sparsity`` is not a number from 0 to 1.
        ModelError: there is no such parameter, or it holds NaN or infinity.
    """
    call = f"prune_weights_by_magnitude({type(layer).__name__}, sparsity={sparsity!r})"
    weight = weight_of(call, layer)
    count = count_to_prune(call, sparsity, weight.numel())
    pruned = zero_smallest(call, {"weight": flat_of(weight)}, count)["weight"]
    change = Change("", "sparsity", was=zero_fraction(weight), now=zero_fraction(pruned))
    return Compressed(copy_with(call, layer, {weight: pruned}), (change,), pruned=frozenset({"weight"}))


def weight_of(call: str, layer: nn.Module) -> nn.Parameter:
    """The parameter ``weight`` of ``layer`` itself.

    Raises:
        ModelError: there is none, or its values are missing or of an unknown kind.
    """
    weight = layer._parameters.get("weight") if isinstance(layer, nn.Module) else None
    if weight is None:
        raise ModelError(
            call,
            "the layer has no parameter called weight",
            "Give a layer such as Linear or Conv2d; remove a parametrization of its weight first",
        )
    require_readable(call, "weight", weight)
    return weight
