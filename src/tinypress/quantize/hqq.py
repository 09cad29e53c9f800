"""Half-quadratic quantization: no data, robust to outliers (Badri and Shaji 2023, "Half-Quadratic Quantization of
Large Machine Learning Models").

The error is measured in the l_p norm with p < 1, which a few outliers hardly move. It is split off into a
variable E of its own, tied to the true error by a growing penalty beta:

    min over z, E of  ||E||_p^p + beta / 2 * ||E - (W - Q^-1(Q(W)))||_2^2

Each round solves for one of them while the other stands still, both in closed form:

    E = sign(x) * max(0, |x| - |x|^(p-1) / beta),    x = W - Q^-1(Q(W))
    z = mean(Q(W) - (W - E) / s)

Their zero point is any real number. Ours is rounded to an integer, because zeros must stay zeros and integer
kernels take no other; what that costs is won back by the step that the same half-quadratic objective gives for
the scale, a least-squares fit for the integers as they are:

    s = <W - E, Q(W) - z> / <Q(W) - z, Q(W) - z>

Each group keeps the best round by the l_p error, the start (rounding to nearest) among them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tinypress.quantize.affine import SMALLEST_SCALE, integer_range, next_power_of_two
from tinypress.quantize.rows import Grid

NORM = 0.7
_ROUNDS = 20
_BETA = 10.0
_GROWTH = 1.01


def half_quadratic(w_Ng: Tensor, low_N: Tensor, high_N: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Scale and zero point [N] of each group with the least l_p error that the rounds meet."""
    least, most = integer_range(grid.bits, grid.scheme)
    scale, zero_point = grid.scales(low_N, high_N)
    best_scale, best_zero = scale, zero_point
    best_error = norm_error(w_Ng, scale, zero_point, grid)
    unit = (
        scale.clone()
    )  # the penalty is set in steps of the grid, so that the unit of the weights is all the same
    beta = _BETA
    for _ in range(_ROUNDS):
        q_Ng = grid.integers(w_Ng, scale, zero_point).float()
        rest = w_Ng - (q_Ng - zero_point[:, None]) * scale[:, None]
        target = w_Ng - shrink(rest / unit[:, None], beta) * unit[:, None]
        if grid.scheme == "affine":
            moved = (q_Ng - target / scale[:, None]).mean(1)
            zero_point = torch.round(moved).clamp(least, most).to(torch.int32)
        steps = q_Ng - zero_point[:, None]
        fitted = (target * steps).sum(1) / steps.square().sum(1)
        usable = torch.isfinite(fitted) & (fitted >= SMALLEST_SCALE)
        scale = torch.where(usable, fitted, scale)
        if grid.power_of_two:
            scale = next_power_of_two(scale)
        error = norm_error(w_Ng, scale, zero_point, grid)
        better = error < best_error
        best_scale = torch.where(better, scale, best_scale)
        best_zero = torch.where(better, zero_point, best_zero)
        best_error = torch.where(better, error, best_error)
        beta *= _GROWTH
    return best_scale, best_zero


def shrink(x: Tensor, beta: float) -> Tensor:
    """sign(x) * max(0, \\|x\\| - \\|x\\|^(p-1) / beta): what of x is taken for outliers."""
    size = x.abs()
    return torch.sign(x) * (size - size.pow(NORM - 1) / beta).clamp_(min=0)


def norm_error(w_Ng: Tensor, scale_N: Tensor, zero_point_N: Tensor, grid: Grid) -> Tensor:
    """sum over a group of \\|w - Q(w)\\|^p, [N]."""
    return grid.nearest(w_Ng, scale_N, zero_point_N).sub_(w_Ng).abs_().pow_(NORM).sum(1)
