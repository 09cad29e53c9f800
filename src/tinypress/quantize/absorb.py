"""Batch norm folded into weights that are integers already: their scales absorb it, the integers stay.

With y = gamma (W x + b - mean) / sqrt(var + eps) + beta and W = q s, one factor f = gamma / sqrt(var + eps) a channel:

    s' = s |f|        q' = q, or its mirror image where f < 0        b' = (b - mean) f + beta

Rounding to nearest with one scale a channel or group gives the same integers before and after a channel is multiplied,
so nothing is lost by quantizing first. What is won: the moments of the batch norm can be estimated again behind the
quantized weights, which takes the shift and the spread that rounding caused out of every channel (Sun et al. 2019,
"Hybrid 8-bit Floating Point Training and Inference for Deep Neural Networks", call it batch norm re-tuning).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from tinypress.bits import pack, unpack
from tinypress.errors import ModelError
from tinypress.facts import QuantizedWeight
from tinypress.quantize.affine import SMALLEST_SCALE, integer_range
from tinypress.quantize.fold import fold_batch_norms
from tinypress.quantize.layer import dequantize_layer_weights


def absorb_batch_norms(
    call: str, model: nn.Module, pairs: Sequence[tuple[str, str]], weights: Mapping[str, QuantizedWeight]
) -> tuple[nn.Module, dict[str, QuantizedWeight]]:
    """A copy of ``model`` with each pair (layer, batch norm after it) folded, and ``weights`` as they are then.

    Raises:
        ModelError: a batch norm keeps no running statistics, or a factor makes a weight infinite.
    """
    factors = {layer: _factor(model.get_submodule(norm)) for layer, norm in pairs}
    folded = fold_batch_norms(model, pairs)
    changed = dict(weights)
    for layer, factor in factors.items():
        name = f"{layer}.weight"
        if name not in weights:
            continue
        changed[name] = scaled_rows(weights[name], factor)
        real = dequantize_layer_weights(changed[name])
        if not bool(torch.isfinite(real).all()):
            raise ModelError(
                call, f"batch norm makes the weights of {layer!r} infinite", "Check its running variance"
            )
        parameter = folded.get_submodule(layer).weight
        assert isinstance(parameter, nn.Parameter)
        parameter.data = real.to(parameter.dtype).to(parameter.device)
    return folded, changed


def _factor(norm: nn.Module) -> Tensor:
    """gamma / sqrt(var + eps), [C] float64; ones where ``fold_batch_norms`` will refuse the norm."""
    variance = norm.running_var
    if not isinstance(variance, Tensor):
        return torch.ones(1, dtype=torch.float64)
    assert isinstance(norm.eps, float)
    factor = 1 / torch.sqrt(variance.double() + norm.eps)
    return factor * norm.weight.detach().double() if isinstance(norm.weight, Tensor) else factor


def scaled_rows(weight: QuantizedWeight, factor_C: Tensor) -> QuantizedWeight:
    """``weight``, whose rows are axis 0, with row c multiplied by ``factor_C[c]``."""
    rows, width = weight.rows
    signed = weight.scheme == "symmetric"
    q_CK = unpack(weight.packed, weight.bits, rows * width, signed=signed).view(rows, width).to(torch.int32)
    least, most = integer_range(weight.bits, "symmetric" if signed else "affine")
    each = weight.scale.numel() // rows
    f = factor_C.cpu().repeat_interleave(each)
    turned = factor_C.cpu() < 0
    q_CK = torch.where(turned[:, None], least + most - q_CK, q_CK)
    zero = weight.zero_point.to(torch.int32)
    zero = torch.where(turned.repeat_interleave(each), least + most - zero, zero)
    scale = (weight.scale.double() * f.abs()).float().clamp(min=SMALLEST_SCALE)
    silent = factor_C.cpu() == 0  # every weight of the row is zero now
    if bool(silent.any()):
        group = max(1, weight.group_size or width)
        zero_CK = zero.view(rows, each)[:, torch.arange(width) // group]
        q_CK = torch.where(silent[:, None], zero_CK, q_CK)
        scale = torch.where(silent.repeat_interleave(each), torch.ones_like(scale), scale)
    integers = q_CK.to(torch.int8 if signed else torch.uint8)
    return replace(weight, packed=pack(integers, weight.bits), scale=scale, zero_point=zero)
