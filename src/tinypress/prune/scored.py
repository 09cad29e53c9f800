"""Let a score function that is not ours decide which weights go, and check what it returns."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor, nn

from tinypress.errors import InputError
from tinypress.facts import Compressed, Note
from tinypress.protocols import Score
from tinypress.prune.sparsity import count_to_prune, count_zeros
from tinypress.prune.swap import flat_of
from tinypress.prune.threshold import require_finite
from tinypress.prune.weights import layer_of


def prune_by_score(
    call: str,
    model: nn.Module,
    weights: Mapping[str, nn.Parameter],
    sparsity: float | Mapping[str, float],
    score: Score,
    together: bool,
) -> tuple[dict[str, Tensor], tuple[Note, ...]]:
    """Flat new values of ``weights``, zero where ``score`` made them so.

    Where ``together``, all weights are laid end to end as the weight [1, total] of one Linear; otherwise
    ``score`` gets a copy of each layer, or a Linear with the parameter where that is not the layer's
    ``weight``. ``sparsity`` may be another for each layer.

    Returns:
        The values, and a note (TP110) for each call that did not prune as many weights as it was asked to.

    Raises:
        InputError: ``score`` returned no network, another shape, or changed weights that it kept.
        ModelError: a weight is NaN or infinite.
    """
    flats = {name: flat_of(parameter) for name, parameter in weights.items()}
    for name, flat in flats.items():
        require_finite(call, {name: flat})
    if together and not isinstance(sparsity, Mapping):
        common = reduce(torch.promote_types, (flat.dtype for flat in flats.values()))
        row = torch.cat([flat.to(common) for flat in flats.values()])
        zeros, notes = _ask(call, score, _linear(row.view(1, -1)), sparsity, None)
        parts = torch.split(zeros, [flat.numel() for flat in flats.values()])
        new = {
            name: flat.masked_fill(part, 0.0) for (name, flat), part in zip(flats.items(), parts, strict=True)
        }
        return new, notes
    new, all_notes = {}, list[Note]()
    for name, parameter in weights.items():
        path, _, leaf = name.rpartition(".")
        layer = copy.deepcopy(model.get_submodule(path)) if leaf == "weight" else _matrix(parameter)
        share = sparsity[name] if isinstance(sparsity, Mapping) else sparsity
        zeros, notes = _ask(call, score, layer, share, layer_of(name))
        new[name] = flats[name].masked_fill(zeros, 0.0)
        all_notes.extend(notes)
    return new, tuple(all_notes)


def _ask(
    call: str, score: Score, layer: nn.Module, sparsity: float, name: str | None
) -> tuple[Tensor, tuple[Note, ...]]:
    """Which weights of ``layer``, in row-major order, ``score`` sets to zero."""
    who = getattr(score, "__name__", type(score).__name__)
    where = "all weights end to end" if name is None else f"the layer {name!r}"
    before = flat_of(_weight(layer)).clone()
    shape = tuple(_weight(layer).shape)
    returned = score(layer, sparsity)
    weight = getattr(returned.model, "weight", None) if isinstance(returned, Compressed) else None
    if not isinstance(weight, Tensor):
        raise InputError(
            call,
            f"the score function {who} did not return a Compressed with a layer in it for {where}",
            "Return Compressed(model=the pruned copy of the layer)",
        )
    if tuple(weight.shape) != shape:
        raise InputError(
            call,
            f"the score function {who} returned weights {list(weight.shape)} for {where}, "
            f"which has {list(shape)}",
            "Set weights to zero and keep the shape",
        )
    after = flat_of(weight)
    zeros = after == 0
    if not torch.equal(after.to(before.dtype), before.masked_fill(zeros, 0.0)):
        raise InputError(
            call,
            f"the score function {who} changed weights of {where} that it kept",
            "Return every weight either as it was or as zero",
        )
    asked = max(count_to_prune(call, sparsity, before.numel()), count_zeros(before))
    got = count_zeros(after)
    if got == asked:
        return zeros, ()
    text = (
        f"the score function {who} left {got} of {before.numel()} weights zero where {asked} were asked for"
    )
    return zeros, (Note("TP110", "warning", name, text),)


def _weight(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight


def _matrix(parameter: Tensor) -> nn.Linear:
    return _linear(parameter.detach().cpu().clone().flatten(1))


def _linear(weight_OI: Tensor) -> nn.Linear:
    # made on the meta device, because a Linear of its own would draw millions of random numbers first
    layer = nn.Linear(weight_OI.shape[1], weight_OI.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weight_OI)
    return layer
