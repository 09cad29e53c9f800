"""The running moments of a batch norm that is folded away: seen in the output of the folded layer.

Behind the layer with batch norm folded, z = f W x + b' with f = gamma / sqrt(var + eps); what the batch norm would see
is y = W x + b = (z - b') / f + b. So mean(y) = (mean(z) - b') / f + b and var(y) = var(z) / f². A channel with
gamma = 0 keeps the moments that it has.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tinypress.quantize.layer import dequantize_layer_weights, quantize_weight, weight_of
from tinypress.quantize.mse import least_squared_error
from tinypress.quantize.rows import Grid
from tinypress.task import Split
from tinypress.train.batchnorm import reestimate_batch_norm


@dataclass(frozen=True)
class FoldedNorm:
    """``norm`` with the bias of its layer before folding, and ``folded_bias`` after."""

    norm: nn.Module
    bias: object
    folded_bias: Tensor

    @torch.no_grad()
    def observe(self, z: Tensor) -> None:
        """Let the running moments follow those of the folded layer's output ``z`` [B, C, ...], as PyTorch's do."""
        norm = self.norm
        mean, variance, tracked = norm.running_mean, norm.running_var, norm.num_batches_tracked
        assert isinstance(mean, Tensor)
        assert isinstance(variance, Tensor)
        assert isinstance(norm.eps, float)
        gamma = norm.weight if isinstance(norm.weight, Tensor) else torch.ones_like(variance)
        factor = gamma.double() / torch.sqrt(variance.double() + norm.eps)
        rows = z.double().transpose(0, 1).flatten(1)
        bias = self.bias.double() if isinstance(self.bias, Tensor) else torch.zeros_like(factor)
        seen_mean = (rows.mean(1) - self.folded_bias.double()) / factor + bias
        seen_variance = rows.var(1) / factor.square()
        assert isinstance(tracked, Tensor)
        tracked += 1
        share = norm.momentum if isinstance(norm.momentum, float) else 1 / int(tracked)
        for running, seen in ((mean, seen_mean), (variance, seen_variance)):
            known = torch.isfinite(seen)
            running.copy_(torch.where(known, (1 - share) * running + share * seen, running.double()))


def use_moments_when_rounded(call: str, model: nn.Module, grids: Mapping[str, Grid], samples: Split) -> None:
    """Give ``model``, in place, the batch-norm statistics that it has with its weights rounded.

    Scales are per output channel, so that the integers of a layer before batch norm is folded into it are those after.

    Args:
        grids: how each layer is rounded, by its name.
        samples: two or more, on which the statistics are estimated.
    """
    norms = {name for name, layer in model.named_modules() if isinstance(layer, _BatchNorm)}
    if not norms:
        return
    rounded = copy.deepcopy(model)
    for name, grid in grids.items():
        layer = rounded.get_submodule(name)
        packed = quantize_weight(
            f"{call}, layer {name!r}", weight_of(call, layer), 0, grid, least_squared_error
        )
        assert isinstance(layer.weight, nn.Parameter)
        layer.weight.data = dequantize_layer_weights(packed).to(layer.weight)
    estimated = reestimate_batch_norm(rounded, samples).model
    for name in norms:
        new = dict(estimated.get_submodule(name).named_buffers())
        for place, own in model.get_submodule(name).named_buffers():
            own.copy_(new[place])
