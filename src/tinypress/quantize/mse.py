"""The clipping range with the least squared error, found by trying (Sung, Shin and Hwang 2015, arXiv:1511.06488).

    c* = argmin over c of  sum (w - Q(w; c * low, c * high))^2,      c = 1, 1 - 1/64, ... 1 - 51/64

for each group of weights on its own. The whole range, c = 1, is among them, so that the error is never above
that of rounding to nearest. Few large weights are clipped where that lets the many small ones be finer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tinypress.quantize.rows import Grid

_STEPS = 64
_TRIED = 52


def least_squared_error(w_Ng: Tensor, low_N: Tensor, high_N: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Scale and zero point [N] of each group under its best clipping range."""
    best_scale, best_zero = grid.scales(low_N, high_N)
    best_error = squared_error(w_Ng, best_scale, best_zero, grid)
    for step in range(1, _TRIED):
        shrink = 1 - step / _STEPS
        scale, zero_point = grid.scales(low_N * shrink, high_N * shrink)
        error = squared_error(w_Ng, scale, zero_point, grid)
        better = error < best_error
        best_scale = torch.where(better, scale, best_scale)
        best_zero = torch.where(better, zero_point, best_zero)
        best_error = torch.where(better, error, best_error)
    return best_scale, best_zero


def squared_error(w_Ng: Tensor, scale_N: Tensor, zero_point_N: Tensor, grid: Grid) -> Tensor:
    """sum over a group of (w - Q(w))^2, [N]."""
    return grid.nearest(w_Ng, scale_N, zero_point_N).sub_(w_Ng).square_().sum(1)
