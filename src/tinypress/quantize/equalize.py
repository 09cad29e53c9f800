"""Cross-layer equalization: neighbouring layers share out their channels' ranges (Nagel et al. 2019, arXiv:1906.04721).

f(s x) = s f(x) for ReLU, so a factor s_c > 0 can leave output channel c of one layer and enter the input channel of
the next: W1 <- S^-1 W1, b1 <- S^-1 b1, W2 <- W2 S computes the same (their equation 6). With

    s_c = sqrt(r1_c r2_c) / r2_c          r1_c, r2_c: the largest magnitude in that row of W1 and column of W2

both have the range sqrt(r1_c r2_c) (their equation 11): no channel is left with a few steps of a range that another
one needs. Pairs that share a layer, such as those around a depthwise convolution, are gone over until nothing moves.

ReLU6 is no such f: it would be replaced by ReLU there. Here it stays, and a channel takes part if ``samples`` show it
below 6, with a factor under which it stays there; channels that reach 6 are left as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tinypress.facts import Change, Compressed, Note
from tinypress.graph import Chain, batch_norm_pairs, chains, forward_eval, trace
from tinypress.quantize.fold import fold_batch_norms
from tinypress.quantize.inputs import Layer
from tinypress.task import Split

_ROUNDS = 40
_STILL = 1e-3
_FURTHEST = 1e4
_MARGIN = 0.9  # of the ceiling, that samples not seen yet may need
_SAMPLES = 64


def equalize_layers(
    model: nn.Module | Compressed, example_inputs: tuple[Tensor, ...], samples: Split | None = None
) -> Compressed:
    """The same function with the ranges of neighbouring layers' channels made equal; batch norm is folded.

    Args:
        samples: like those the network will see; the first 64 tell which channels stay below the 6 of a ReLU6. Without
            them layers with a ReLU6 between them are left alone.

    Returns:
        the network, a change for each pair, and a note (TP230) where there is no pair.

    Raises:
        ModelError: the network cannot be traced.
    """
    before = model if isinstance(model, Compressed) else Compressed(model)
    network = fold_batch_norms(before.model, batch_norm_pairs(trace(before.model, example_inputs)))
    pairs = [pair for pair in chains(trace(network, example_inputs)) if _fits(network, pair)]
    capped = [pair.first for pair in pairs if pair.ceiling is not None]
    reached = _largest(network, capped, samples) if samples is not None and capped else {}
    pairs = [pair for pair in pairs if pair.ceiling is None or pair.first in reached]
    moved = {
        pair: torch.ones(_layer(network, pair.first).weight.shape[0], dtype=torch.float64) for pair in pairs
    }
    for _ in range(_ROUNDS):
        still = True
        for pair in pairs:
            factor = _share(network, pair, reached.get(pair.first))
            moved[pair] *= factor
            still &= bool((factor.log().abs() < _STILL).all())
            if pair.first in reached:
                reached[pair.first] = reached[pair.first] / factor
        if still:
            break
    changes = [
        Change(
            pair.first, "largest factor of a channel moved to the next layer", 1.0, _largest_factor(factor)
        )
        for pair, factor in moved.items()
    ]
    notes = list(before.notes)
    if not pairs:
        text = "no two layers follow one another with only ReLU, pooling or the like between them: nothing to equalize"
        notes.append(Note("TP230", "note", None, text))
    return Compressed(network, (*before.changes, *changes), tuple(notes), before.pruned, before.plan)


def _largest_factor(factor: Tensor) -> float:
    return float(torch.exp(factor.log().abs().max()))


def _layer(network: nn.Module, path: str) -> Layer:
    layer = network.get_submodule(path)
    assert isinstance(layer, Layer)
    return layer


def _fits(network: nn.Module, pair: Chain) -> bool:
    """Whether both are layers whose channels meet one to one."""
    first, second = network.get_submodule(pair.first), network.get_submodule(pair.second)
    if not isinstance(first, Layer) or not isinstance(second, Layer):
        return False
    channels = second.in_features if isinstance(second, nn.Linear) else second.in_channels
    return channels == first.weight.shape[0] * pair.spread


@torch.no_grad()
def _share(network: nn.Module, pair: Chain, reached_C: Tensor | None) -> Tensor:
    """Move factors of one pair from the first layer to the second; returns them, float64 [C]."""
    first, second = _layer(network, pair.first), _layer(network, pair.second)
    rows_C = first.weight.double().flatten(1).abs().amax(1)
    columns_C = _columns(second, pair.spread).abs().amax((0, 2))
    factor_C = torch.sqrt(rows_C * columns_C) / columns_C
    factor_C = torch.where((rows_C > 0) & (columns_C > 0), factor_C.clamp(1 / _FURTHEST, _FURTHEST), 1.0)
    if reached_C is not None:
        assert pair.ceiling is not None
        room = _MARGIN * pair.ceiling
        # what grows in between must stay below the ceiling, and what may have met it must not be moved away from it
        factor_C = torch.where(reached_C < room, torch.maximum(factor_C, reached_C / room), 1.0)
    shape = [-1, *[1] * (first.weight.dim() - 1)]
    first.weight.data = (first.weight.double() / factor_C.view(shape)).to(first.weight.dtype)
    if first.bias is not None:
        first.bias.data = (first.bias.double() / factor_C).to(first.bias.dtype)
    scaled = _columns(second, pair.spread) * factor_C[:, None]
    second.weight.data = _uncolumns(scaled, second).to(second.weight.dtype)
    return factor_C


def _columns(layer: Layer, spread: int) -> Tensor:
    """The weights by the input channel that they meet, float64 [O, C, K]; O the outputs of one group."""
    weight = layer.weight.double()
    if isinstance(layer, nn.Linear):
        return weight.view(len(weight), -1, spread)
    grouped = weight.view(layer.groups, len(weight) // layer.groups, weight.shape[1], -1)  # [J, O, I, K]
    return grouped.transpose(0, 1).flatten(1, 2)


def _uncolumns(columns: Tensor, layer: Layer) -> Tensor:
    if isinstance(layer, nn.Linear):
        return columns.reshape(layer.weight.shape)
    split = columns.view(len(columns), layer.groups, layer.weight.shape[1], -1)
    return split.transpose(0, 1).reshape(layer.weight.shape)


def _largest(network: nn.Module, paths: Sequence[str], samples: Split | None) -> dict[str, Tensor]:
    """The largest number that each output channel of some layers has on the samples, at least 0, float64 [C]."""
    assert samples is not None
    found: dict[str, Tensor] = {}
    hooks = []
    for path in paths:

        def keep(layer: nn.Module, _: object, made: Tensor, path: str = path) -> None:
            rows = made if isinstance(layer, nn.Linear) else made.flatten(2).transpose(1, 2)
            found[path] = rows.flatten(0, -2).amax(0).double().clamp(min=0)

        hooks.append(network.get_submodule(path).register_forward_hook(keep))
    try:
        forward_eval(network, tuple(x[:_SAMPLES] for x in samples.inputs))
    finally:
        for hook in hooks:
            hook.remove()
    return found
