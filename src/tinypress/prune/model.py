"""Prune a whole network: every layer to the same sparsity, or all weights ranked together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Literal

import torch
from torch import Tensor, nn

from tinypress.errors import InputError
from tinypress.facts import Change, Compressed
from tinypress.protocols import Score
from tinypress.prune.magnitude import prune_weights_by_magnitude
from tinypress.prune.scored import prune_by_score
from tinypress.prune.sparsity import count_to_prune, zero_fraction
from tinypress.prune.swap import copy_with, flat_of
from tinypress.prune.weights import layer_of, prunable_weights
from tinypress.prune.zero import zero_smallest


def prune_model_by_magnitude(
    model: nn.Module,
    sparsity: float,
    *,
    scope: Literal["global", "layer"] = "global",
    layers: Sequence[str] | None = None,
    score: Score = prune_weights_by_magnitude,
) -> Compressed:
    """A copy of ``model`` with round(sparsity * number of weights) of its weights set to zero.

    Weights are those of linear, convolutional, recurrent and attention layers. Biases and normalization are
    never pruned, embeddings only when they are named. Parameters that layers share are counted once and
    stay shared. ``pruned`` holds the parameters' names as ``model.named_parameters()`` gives them.

    Args:
        sparsity: the fraction to set to zero, 0..1.
        scope: ``global`` ranks all weights together, the earlier in (parameter order, index) first among
            equals; ``layer`` brings each parameter to ``sparsity`` on its own.
        layers: names of the modules to prune, as in ``model.named_modules()``; all if left out.
        score: decides which weights go. With ``global`` it gets all weights end to end as the weight
            [1, number of weights] of one Linear, otherwise one layer after the other.

    Returns:
        The network; the sparsity of each layer before and after; notes on matrices that were left alone
        (TP111) and on a ``score`` that pruned another number than it was asked for (TP110).

    Raises:
        InputError: ``sparsity``, ``scope`` or a name in ``layers`` is wrong, or ``score`` returned weights
            of another shape or changed those it kept.
        ModelError: there is nothing to prune, or a weight is NaN or infinite.
    """
    call = f"prune_model_by_magnitude({type(model).__name__}, sparsity={sparsity!r}, scope={scope!r})"
    if not isinstance(model, nn.Module):
        raise InputError(call, "model is not a torch.nn.Module", "Give the network itself")
    if scope not in ("global", "layer"):
        raise InputError(call, f"scope is {scope!r}", "Give 'global' or 'layer'")
    count_to_prune(call, sparsity, 0)
    weights, notes = prunable_weights(call, model, layers)
    together = scope == "global"
    if score is prune_weights_by_magnitude:
        flats = _prune_ours(call, weights, sparsity, together)
    else:
        flats, more = prune_by_score(call, model, weights, sparsity, score, together)
        notes += more
    changes = tuple(_change(name, parameter, flats[name]) for name, parameter in weights.items())
    pruned = copy_with(call, model, {parameter: flats[name] for name, parameter in weights.items()})
    return Compressed(pruned, changes, notes, frozenset(weights))


def _prune_ours(
    call: str, weights: Mapping[str, nn.Parameter], sparsity: float, together: bool
) -> dict[str, Tensor]:
    flats = {name: flat_of(parameter) for name, parameter in weights.items()}
    if not together:
        return {
            name: zero_smallest(call, {name: flat}, count_to_prune(call, sparsity, flat.numel()))[name]
            for name, flat in flats.items()
        }
    # magnitudes of different dtypes are compared in one that holds them all exactly
    common = reduce(torch.promote_types, (flat.dtype for flat in flats.values()))
    total = sum(flat.numel() for flat in flats.values())
    alike = {name: flat.to(common) for name, flat in flats.items()}
    return zero_smallest(call, alike, count_to_prune(call, sparsity, total))


def _change(name: str, was: Tensor, now: Tensor) -> Change:
    return Change(layer_of(name), "sparsity", zero_fraction(was), zero_fraction(now))
