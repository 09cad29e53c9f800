"""Batch norm folded into the convolution or linear layer before it (Jacob et al. 2018, arXiv:1712.05877, §3.2).

In evaluation mode y = gamma * (W x + b - mean) / sqrt(var + eps) + beta is one affine map: folding it before
the weights are quantized makes the integers in every file those of the layer that really runs.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tinypress.errors import ModelError
from tinypress.layers import replace_module


def fold_batch_norms(model: nn.Module, pairs: Sequence[tuple[str, str]]) -> nn.Module:
    """A copy of ``model`` in which each pair (layer, batch norm after it) is one layer and an ``nn.Identity``.

    Weights keep their dtype; the sums are taken in float64.

    Raises:
        ModelError: a batch norm keeps no running statistics.
    """
    folded = copy.deepcopy(model).eval()
    for layer_name, norm_name in pairs:
        layer, norm = folded.get_submodule(layer_name), folded.get_submodule(norm_name)
        if not isinstance(norm.running_mean, Tensor) or not isinstance(norm.running_var, Tensor):
            raise ModelError(
                f"fold_batch_norms({type(model).__name__}, {norm_name!r})",
                "this batch norm keeps no running statistics",
                "Build it with track_running_stats=True",
            )
        assert isinstance(layer.weight, nn.Parameter)
        with torch.no_grad():
            weight, bias = folded_tensors(layer, norm)
        layer.weight = nn.Parameter(weight, layer.weight.requires_grad)
        layer.bias = nn.Parameter(bias)
        replace_module(folded, norm_name, nn.Identity())
    return folded


def folded_tensors(layer: nn.Module, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of ``layer`` and the batch norm behind it as one (Jacob et al., eq. 14); gradients flow.

    w' = gamma * w / sqrt(var + eps) and b' = beta + gamma * (b - mean) / sqrt(var + eps), with the running statistics.
    """
    weight, mean, variance = layer.weight, norm.running_mean, norm.running_var
    assert isinstance(weight, Tensor)
    assert isinstance(mean, Tensor)
    assert isinstance(variance, Tensor)
    assert isinstance(norm.eps, float)
    factor = 1 / torch.sqrt(variance.double() + norm.eps)
    if isinstance(norm.weight, Tensor):
        factor = factor * norm.weight.double()
    bias = layer.bias.double() if isinstance(layer.bias, Tensor) else torch.zeros_like(factor)
    shift = norm.bias.double() if isinstance(norm.bias, Tensor) else torch.zeros_like(factor)
    rows = factor.reshape(-1, *[1] * (weight.dim() - 1))
    return (weight.double() * rows).to(weight.dtype), ((bias - mean.double()) * factor + shift).to(
        weight.dtype
    )
