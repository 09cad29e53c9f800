"""The control beside pruning by magnitude: the same number of weights, chosen by lot."""

from __future__ import annotations

import torch
from torch import nn

from tinypress.errors import InputError
from tinypress.facts import Change, Compressed
from tinypress.prune.magnitude import weight_of
from tinypress.prune.sparsity import count_to_prune, zero_fraction
from tinypress.prune.swap import copy_with, flat_of
from tinypress.prune.threshold import require_finite
from tinypress.prune.zero import zero_smallest


def prune_weights_at_random(layer: nn.Module, sparsity: float, *, seed: int = 0) -> Compressed:
    """A copy of ``layer`` with round(sparsity * numel) weights set to zero, chosen by lot.

    Weights that are zero already come first, as in pruning by magnitude. The bias stays. The same ``seed``
    gives the same weights, and the global random state is neither read nor changed.

    Args:
        layer: any module with a floating-point parameter ``weight`` of any shape.
        sparsity: the fraction to set to zero, 0..1.

    Raises:
        InputError: ``sparsity`` is not a number from 0 to 1, or ``seed`` is not a whole number.
        ModelError: there is no such parameter, or it holds NaN or infinity.
    """
    call = f"prune_weights_at_random({type(layer).__name__}, sparsity={sparsity!r}, seed={seed!r})"
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise InputError(call, f"seed is {seed!r}", "Give a whole number")
    weight = weight_of(call, layer)
    count = count_to_prune(call, sparsity, weight.numel())
    flat = flat_of(weight)
    require_finite(call, {"weight": flat})
    generator = torch.Generator().manual_seed(seed)
    lots = torch.rand(flat.numel(), generator=generator).neg_().add_(1.0)  # (0, 1], so that only zeros draw 0
    drawn = zero_smallest(call, {"weight": lots.masked_fill_(flat == 0, 0.0)}, count)["weight"]
    pruned = flat.masked_fill(drawn == 0, 0.0)
    change = Change("", "sparsity", was=zero_fraction(flat), now=zero_fraction(pruned))
    return Compressed(copy_with(call, layer, {weight: pruned}), (change,), pruned=frozenset({"weight"}))
