"""What rounding moved, put back: the mean, and the spread, of every channel that a quantized layer makes.

Rounded weights shift the outputs of a layer, because the rounding errors of one output channel do not cancel over
inputs that are mostly positive (Nagel et al. 2019, arXiv:1906.04721, §4.2; Finkelstein et al. 2019,
arXiv:1906.03193). Bias correction subtracts what the samples show of it (their appendix D):

    b <- b + E[y] - E[y_q]

Batch-norm re-estimation also gives the channel its spread back, as a batch norm with moments of the quantized
network would (Hubara et al. 2021, arXiv:2006.10518, §3.3). Batch norm is folded here, so its new factor goes where
the scale of the weights already is, at no cost in the file or in time:

    W_q <- f W_q,   b <- f (b - E[y_q]) + E[y],   f = sqrt(Var[y] / Var[y_q])

Layers are set right in the order in which they run, each on inputs that come from the corrected layers before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tinypress.facts import Change, Note, QuantizedWeight
from tinypress.graph import forward_eval
from tinypress.quantize.inputs import Layer
from tinypress.quantize.layer import dequantize_layer_weights
from tinypress.task import Split

_SAMPLES = 64
_FURTHEST = 2.0  # factor of the spread, either way

_Moments = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Restored:
    """The weights with their new scales, what changed, and which layers could not be set right."""

    weights: Mapping[str, QuantizedWeight]
    changes: tuple[Change, ...]
    notes: tuple[Note, ...]


def restore_moments(
    network: nn.Module,
    original: nn.Module,
    weights: Mapping[str, QuantizedWeight],
    samples: Split,
    *,
    spread: bool,
) -> Restored:
    """Move biases, and with ``spread`` scales, of ``network`` so that its layers make what those of ``original`` make.

    Args:
        network: with the dequantized weights; its parameters are written to.
        original: the same layers before they were quantized.
        weights: the integers of ``network`` by parameter name.
        samples: the first 64 go through both networks, as one batch.
    """
    inputs = tuple(x[:_SAMPLES] for x in samples.inputs)
    layers = {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, Layer) and f"{name}.weight" in weights
    }
    wanted = _moments(original, list(layers), inputs)
    found, changes, notes = dict(weights), list[Change](), list[Note]()
    # an embedding may own the weight as well
    own = (module._parameters.get("weight") for module in network.modules())
    shared = Counter(id(weight) for weight in own if weight is not None)
    hooks = []
    for name, layer in layers.items():
        reason = _reason(layer, len(wanted[name]), shared[id(layer.weight)])
        if reason is not None:
            notes.append(Note("TP231", "note", name, f"{reason}: what rounding moved in it stays moved"))
            continue
        restore = _Restore(name, wanted[name][0], spread, found, changes)
        hooks.append(layer.register_forward_hook(restore))
    try:
        forward_eval(network, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return Restored(found, tuple(changes), tuple(notes))


def _reason(layer: Layer, calls: int, owners: int) -> str | None:
    """Why the outputs of a layer cannot be set right."""
    if layer.bias is None:
        return "it has no bias"
    if owners > 1 or calls != 1:
        return "the samples never reach it" if not calls else "its weights are used more than once"
    return None


@dataclass(frozen=True)
class _Restore:
    """Sets a layer right when it is called, and makes its outputs again."""

    name: str
    wanted: _Moments
    spread: bool
    weights: dict[str, QuantizedWeight]
    changes: list[Change]

    def __call__(self, layer: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> Tensor:
        assert isinstance(layer, Layer)
        assert layer.bias is not None
        mean, deviation = self.wanted
        mean_q, deviation_q = _moments_of(layer, made)
        shift = float((mean_q - mean).abs().mean())
        self.changes.append(Change(self.name, "mean shift of its outputs", shift, 0.0))
        weight = self.weights[f"{self.name}.weight"]
        factor = torch.ones_like(mean)
        if self.spread and weight.axis == 0 and not weight.is_half:
            moved = (deviation / deviation_q).clamp(1 / _FURTHEST, _FURTHEST)
            factor = torch.where((deviation > 0) & (deviation_q > 0), moved, factor)
            scale = weight.scale.view(len(factor), -1) * factor[:, None].float()
            weight = replace(weight, scale=scale.view(-1))
            self.weights[f"{self.name}.weight"] = weight
            layer.weight.data = dequantize_layer_weights(weight).to(layer.weight)
        layer.bias.data = (factor * (layer.bias.double() - mean_q) + mean).to(layer.bias)
        again: Tensor = layer.forward(*given)
        return again


def _moments(
    network: nn.Module, names: Sequence[str], inputs: tuple[Tensor, ...]
) -> dict[str, list[_Moments]]:
    """For each layer the moments of its outputs, one entry a call."""
    found: dict[str, list[_Moments]] = {name: [] for name in names}
    hooks = []
    for name in names:

        def keep(layer: nn.Module, _: object, made: Tensor, name: str = name) -> None:
            assert isinstance(layer, Layer)
            found[name].append(_moments_of(layer, made))

        hooks.append(network.get_submodule(name).register_forward_hook(keep))
    try:
        forward_eval(network, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _moments_of(layer: Layer, made: Tensor) -> _Moments:
    """Mean and standard deviation of each output channel, float64 [C]."""
    rows = made if isinstance(layer, nn.Linear) else made.movedim(1 - layer.weight.dim(), -1)
    rows = rows.reshape(-1, layer.weight.shape[0]).double()
    return rows.mean(0), rows.std(0, correction=0)
