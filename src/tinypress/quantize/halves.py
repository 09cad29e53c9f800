"""float16 and bfloat16 as the trivial quantization: the nearest half, halves of the last bit to even, no scale."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from tinypress.errors import InputError, ModelError
from tinypress.facts import QuantizedWeight

Half = Literal["float16", "bfloat16"]
HALVES: dict[str, torch.dtype] = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def half_weight(call: str, weight: Tensor, scheme: Half) -> QuantizedWeight:
    """``weight`` in two bytes each.

    Raises:
        ModelError: a weight is NaN, infinite, or so large that it would become infinite.
    """
    half = weight.detach().cpu().float().to(HALVES[scheme]).contiguous()
    if not bool(torch.isfinite(half).all()):
        raise ModelError(
            call,
            f"the parameter 'weight' holds NaN, infinity or a magnitude that {scheme} does not reach",
            "Take bfloat16, or look for the step of the training that diverged",
        )
    packed = half.reshape(-1).view(torch.uint8)
    one, zero = torch.ones(1), torch.zeros(1, dtype=torch.int32)
    return QuantizedWeight(packed, tuple(weight.shape), 16, scheme, None, one, zero)


def real_halves(call: str, weight: QuantizedWeight) -> Tensor:
    """The halves in float32 and their shape.

    Raises:
        InputError: the bytes are not those of this shape.
    """
    needed = 2 * math.prod(weight.shape)
    if weight.packed.dtype != torch.uint8 or weight.packed.numel() != needed or weight.bits != 16:
        raise InputError(
            call,
            f"{weight.packed.numel()} bytes of {weight.bits} bits, and the shape needs {needed} of 16",
            "Give what quantize_weights made",
        )
    return weight.packed.view(HALVES[weight.scheme]).view(weight.shape).float()
