"""Fake quantization: real numbers that went through their integers, with a gradient to train by.

Forward it is the arithmetic of ``affine.py`` and ``layer.py``, to the last bit. Rounding has a gradient of zero almost
everywhere; backward it is taken for the identity (straight-through estimator: Bengio, Léonard and Courville 2013,
arXiv:1308.3432; for quantization Jacob et al. 2018, arXiv:1712.05877, §3).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from tinypress.quantize.affine import Scheme, integer_range


def fake_quantize(values: Tensor, scale: Tensor, zero_point: Tensor, bits: int, scheme: Scheme) -> Tensor:
    """(clamp(round(x / scale) + zero_point, least, most) - zero_point) * scale, float32 of the shape of ``values``.

    The gradient passes where nothing is clamped. ``scale`` and ``zero_point`` broadcast against ``values`` and get
    none.
    """
    quantized: Tensor = _Fake.apply(values, scale, zero_point, integer_range(bits, scheme), None)  # type: ignore[no-untyped-call]
    return quantized


def fake_quantize_learned(
    values: Tensor, scale: Tensor, zero_point: Tensor, bits: int, scheme: Scheme, count: int
) -> Tensor:
    """``fake_quantize`` with a step that is learnt (LSQ: Esser et al. 2020, arXiv:1902.08153, eqs. 1 to 3 and §2.2).

        ∂x'/∂x = 1 where Q_N < x/s < Q_P, else 0
        ∂x'/∂s = round(x/s) - x/s where Q_N < x/s < Q_P, Q_N below, Q_P above; times g = 1 / sqrt(count Q_P)

    with Q_N = least - zero_point and Q_P = most - zero_point. ``count`` is how many values share a step.
    """
    least, most = integer_range(bits, scheme)
    factor = 1 / math.sqrt(max(1, count) * most)
    quantized: Tensor = _Fake.apply(values, scale, zero_point, (least, most), factor)  # type: ignore[no-untyped-call]
    return quantized


class _Fake(Function):
    """One pass forward and one backward, so that nothing but the inputs is remembered between them."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, scale: Tensor, zero: Tensor, ends: tuple[int, int], factor: float | None
    ) -> Tensor:
        ctx.save_for_backward(values, scale, zero)
        ctx.ends, ctx.factor = ends, factor
        q = torch.div(values, scale).round_().add_(zero).clamp_(*ends)
        return q.sub_(zero).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        values, scale, zero = ctx.saved_tensors
        (gradient,), (least, most), factor = gradients, ctx.ends, ctx.factor
        ratio = values / scale
        rounded = ratio.round()
        if factor is None:
            # by the integer, because the largest weight of a range may lie a last bit beyond its end
            inside = (rounded + zero >= least) & (rounded + zero <= most)
            return gradient * inside, None, None, None, None
        low, high = least - zero, most - zero
        inside = (ratio > low) & (ratio < high)
        by_step = torch.where(inside, rounded - ratio, torch.where(ratio <= low, low, high).to(ratio.dtype))
        step = (gradient * by_step).sum_to_size(scale.shape) * factor
        return gradient * inside, step, None, None, None
