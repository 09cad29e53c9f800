"""AWQ: input channels that carry large activations get finer steps (Lin et al. 2024, arXiv:2306.00978).

The weights of input channel k are multiplied by s_k before they are rounded and its input is divided by s_k
(equation 2): the same product, with the rounding error of that channel divided by about s_k. The search is that
of equations 4 and 5, one number a layer:

    s = mean|x|^alpha,   alpha* = argmin || Q(W diag(s)) diag(s)^-1 X - W X ||^2,   alpha = 0, 1/20, ... 1

The s is divided by sqrt(max s * min s), which changes no product and keeps it near 1. The error needs no more of X
than X X^T: it is the trace of D (X X^T) D^T, with D the difference of the weights. alpha = 0 is rounding to
nearest, so that the error on the calibration inputs is never above that one's.

The division stays in the plan as ``input_scale``. It can be moved into the operator before the layer only where
that one is linear and has no other reader; as a factor of the input it is exact everywhere, for one
multiplication an input.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tinypress.quantize.rows import Fit, Grid, quantize_rows, real_rows, whole_range

_STEPS = 20


def awq_rows(
    call: str,
    w_CK: Tensor,
    hessian_KK: Tensor,
    mean_abs_I: Tensor,
    grid: Grid,
    *,
    fit: Fit = whole_range,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The integers [C, K], scale and zero point [C * G], and input scale [I] with the least error.

    Args:
        hessian_KK: X X^T summed over the calibration inputs.
        mean_abs_I: mean magnitude of each input channel, each of which meets K / I neighbouring columns.

    Raises:
        ModelError: a weight is NaN, infinite or beyond 1e38.
    """
    w_CK = w_CK.float()
    each = w_CK.shape[1] // len(mean_abs_I)
    best: tuple[Tensor, Tensor, Tensor, Tensor] | None = None
    least = float("inf")
    for step in range(_STEPS + 1):
        s_I = _scales(mean_abs_I, step / _STEPS)
        s_K = s_I.repeat_interleave(each)
        q_CK, scale, zero_point = quantize_rows(call, w_CK * s_K, grid, fit)
        real = real_rows(q_CK, scale, zero_point, grid.group_size) / s_K
        error = output_error(real - w_CK, hessian_KK)
        if best is None or error < least:
            best, least = (q_CK, scale, zero_point, s_I), error
    assert best is not None
    return best


def output_error(difference_CK: Tensor, hessian_KK: Tensor) -> float:
    """The squared error of the outputs, trace(D H D^T)."""
    difference = difference_CK.double()
    return float(((difference @ hessian_KK.double()) * difference).sum())


def _scales(mean_abs_I: Tensor, alpha: float) -> Tensor:
    # a channel that was always silent says nothing about how fine it should be
    seen = mean_abs_I > 0
    s = torch.where(seen, mean_abs_I.double(), torch.ones_like(mean_abs_I, dtype=torch.float64)) ** alpha
    if bool(seen.any()):
        s = torch.where(seen, s / torch.sqrt(s[seen].max() * s[seen].min()), torch.ones_like(s))
    return s.float().clamp(min=1e-4, max=1e4)
