"""Prune a whole network: every layer to the same sparsity, or all weights ranked together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Literal

import torch
from torch import Tensor, nn

from tinypress.errors import InputError
from tinypress.facts import Change, Compressed, Note
from tinypress.protocols import Score
from tinypress.prune.allocation import ALLOCATIONS, Allocation, erk_counts, lamp_scores
from tinypress.prune.magnitude import prune_weights_by_magnitude
from tinypress.prune.pattern import check_sparsity, parse_pattern, prune_to_pattern
from tinypress.prune.scored import prune_by_score
from tinypress.prune.sparsity import count_to_prune, zero_fraction
from tinypress.prune.swap import copy_with, flat_of
from tinypress.prune.threshold import require_finite
from tinypress.prune.weights import layer_of, prunable_weights
from tinypress.prune.zero import zero_smallest


def prune_model_by_magnitude(
    model: nn.Module,
    sparsity: float,
    *,
    scope: Literal["global", "layer"] = "global",
    layers: Sequence[str] | None = None,
    score: Score = prune_weights_by_magnitude,
    pattern: str | None = None,
    allocation: Allocation | None = None,
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
        pattern: ``N:M`` (such as ``2:4``, with its own sparsity) or a block such as ``4x1``; round(sparsity *
            number of blocks) go then. See ``tinypress.prune.pattern``.
        allocation: how layers share the sparsity, in place of ``scope``: ``uniform``, ``erk`` or ``lamp``. See
            ``tinypress.prune.allocation``.

    Returns:
        The network; the sparsity of each layer before and after; notes on matrices that were left alone
        (TP111), on weights that the pattern does not fit (TP112) and on a ``score`` that pruned another number than
        it was asked for (TP110).

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
    check_pruning(call, sparsity, score is prune_weights_by_magnitude, pattern, allocation)
    weights, notes = prunable_weights(call, model, layers)
    together = scope == "global" and allocation is None
    flats, more = _prune(call, model, weights, sparsity, score, pattern, allocation, together)
    weights = {name: parameter for name, parameter in weights.items() if name in flats}
    changes = tuple(_change(name, parameter, flats[name]) for name, parameter in weights.items())
    pruned = copy_with(call, model, {parameter: flats[name] for name, parameter in weights.items()})
    return Compressed(pruned, changes, (*notes, *more), frozenset(weights))


def check_pruning(
    call: str, sparsity: float, by_magnitude: bool, pattern: str | None, allocation: str | None
) -> None:
    """Refuse settings that contradict one another; ``by_magnitude`` tells that no other score was given.

    Raises:
        InputError: they do.
    """
    if allocation is not None and allocation not in ALLOCATIONS:
        raise InputError(call, f"allocation is {allocation!r}", f"Give one of {list(ALLOCATIONS)}")
    if pattern is not None and allocation not in (None, "uniform"):
        raise InputError(call, f"a pattern cannot be shared out by {allocation!r}", "Leave one of them out")
    if not by_magnitude and (pattern is not None or allocation == "lamp"):
        what = f"the pattern {pattern!r}" if pattern is not None else "'lamp'"
        raise InputError(
            call, f"{what} ranks by magnitude, and another score is given", "Leave one of them out"
        )
    if pattern is not None:
        check_sparsity(call, sparsity, parse_pattern(pattern))


def _prune(
    call: str,
    model: nn.Module,
    weights: Mapping[str, nn.Parameter],
    sparsity: float,
    score: Score,
    pattern: str | None,
    allocation: Allocation | None,
    together: bool,
) -> tuple[dict[str, Tensor], tuple[Note, ...]]:
    """Flat new values of the weights that are pruned, and what else there is to say."""
    if pattern is not None:
        magnitudes = {name: parameter.detach().abs() for name, parameter in weights.items()}
        gone, notes = prune_to_pattern(call, model, magnitudes, sparsity, parse_pattern(pattern), together)
        return {name: flat_of(weights[name]).masked_fill(x.view(-1), 0.0) for name, x in gone.items()}, notes
    if allocation == "lamp":
        flats = {name: flat_of(parameter) for name, parameter in weights.items()}
        for name, flat in flats.items():
            require_finite(call, {name: flat})
        count = count_to_prune(call, sparsity, sum(flat.numel() for flat in flats.values()))
        kept = zero_smallest(call, {name: lamp_scores(flat) for name, flat in flats.items()}, count)
        return {name: flat.masked_fill(kept[name] == 0, 0.0) for name, flat in flats.items()}, ()
    shares: dict[str, float] | None = None
    if allocation == "erk":
        counts = erk_counts(call, {name: tuple(x.shape) for name, x in weights.items()}, sparsity)
        shares = {name: counts[name] / max(1, x.numel()) for name, x in weights.items()}
    if score is prune_weights_by_magnitude:
        return _prune_ours(call, weights, shares if shares is not None else sparsity, together), ()
    return prune_by_score(call, model, weights, shares if shares is not None else sparsity, score, together)


def _prune_ours(
    call: str, weights: Mapping[str, nn.Parameter], sparsity: float | Mapping[str, float], together: bool
) -> dict[str, Tensor]:
    flats = {name: flat_of(parameter) for name, parameter in weights.items()}
    if not together or isinstance(sparsity, Mapping):
        shares = sparsity if isinstance(sparsity, Mapping) else dict.fromkeys(flats, sparsity)
        return {
            name: zero_smallest(call, {name: flat}, count_to_prune(call, shares[name], flat.numel()))[name]
            for name, flat in flats.items()
        }
    # magnitudes of different dtypes are compared in one that holds them all exactly
    common = reduce(torch.promote_types, (flat.dtype for flat in flats.values()))
    total = sum(flat.numel() for flat in flats.values())
    alike = {name: flat.to(common) for name, flat in flats.items()}
    return zero_smallest(call, alike, count_to_prune(call, sparsity, total))


def _change(name: str, was: Tensor, now: Tensor) -> Change:
    return Change(layer_of(name), "sparsity", zero_fraction(was), zero_fraction(now))
