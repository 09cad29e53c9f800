"""GPTQ: each rounding error is made good by the weights that are still free (Frantar et al. 2023, arXiv:2210.17323).

The error of a layer over its calibration inputs X is quadratic, ||W X - Q X||^2, with Hessian H = 2 X X^T
(equation 1). Column by column, in one order for all rows, the column is rounded and what is left moves
by the optimal update (equations 2 and 3):

    delta = -(w_q - quant(w_q)) / [H^-1]_qq * (H^-1)_:,q         H^-1 of the columns that are still free

All these inverses are the rows of one upper Cholesky factor U of H^-1 = U^T U (their step 3): the update is
err * U[q, q:] with err = (w_q - quant(w_q)) / U[q, q]. Columns of one block are worked on in full, those after
it once a block (their step 2). H gets ``damping`` times the mean of its diagonal added, for those inputs
that say nothing about a column.

A weight that is exactly zero is rounded to zero whatever has been moved onto it, and the columns after it make that
good too, so pruned weights stay pruned.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tinypress.quantize.affine import integer_dtype, to_integers, to_real
from tinypress.quantize.rows import Fit, Grid, check_range, cut, group_shape, whole_range

_BLOCK = 128
DAMPING = 0.01


def gptq_rows(
    call: str,
    w_CK: Tensor,
    hessian_KK: Tensor,
    grid: Grid,
    *,
    fit: Fit = whole_range,
    act_order: bool = False,
    damping: float = DAMPING,
    block: int = _BLOCK,
) -> tuple[Tensor, Tensor, Tensor]:
    """The integers [C, K] of rows that share their inputs, with scale and zero point [C * G].

    Args:
        hessian_KK: X X^T summed over the calibration inputs; a common factor makes no difference.
        act_order: columns with the largest diagonal first; the scales of the groups are then those of the weights
            before any of them moved, otherwise those of the weights when their group begins.

    Raises:
        ModelError: a weight is NaN, infinite or beyond 1e38.
    """
    channels, width = w_CK.shape
    if not w_CK.numel():
        group, groups = group_shape(width, grid.group_size)
        empty = torch.empty(channels, width, dtype=integer_dtype(grid.scheme))
        return empty, torch.ones(channels * groups), torch.zeros(channels * groups, dtype=torch.int32)
    check_range(call, w_CK.float().amin(), w_CK.float().amax())
    w_CK, zero_CK = w_CK.double(), w_CK == 0  # the sums over thousands of columns are worth float64
    group, groups = group_shape(width, grid.group_size)
    static = act_order or grid.group_size is None
    scale_CG, point_CG = _fitted(w_CK, group, grid, fit)
    order = torch.arange(width)
    if act_order:
        order = torch.argsort(torch.diagonal(hessian_KK), descending=True, stable=True)
        w_CK, zero_CK, hessian_KK = w_CK[:, order], zero_CK[:, order], hessian_KK[order][:, order]
    factor_KK = inverse_factor(hessian_KK, damping)
    step = max(1, block // group) * group if not static else block  # a group lies in one block
    q_CK = torch.empty(channels, width, dtype=integer_dtype(grid.scheme))
    w_CK = w_CK.clone()
    for start in range(0, width, step):
        end = min(start + step, width)
        errors = torch.empty(channels, end - start, dtype=torch.float64)
        for column in range(start, end):
            place = int(order[column]) // group
            if not static and column % group == 0:
                here = w_CK[:, column : column + group].masked_fill(zero_CK[:, column : column + group], 0)
                scale, point = _fitted(here, group, grid, fit)
                scale_CG[:, place], point_CG[:, place] = scale[:, 0], point[:, 0]
            scale_C, point_C = scale_CG[:, place], point_CG[:, place]
            wanted = w_CK[:, column]
            aimed = wanted.masked_fill(zero_CK[:, column], 0).float()
            q_C = to_integers(aimed, scale_C, point_C, grid.bits, grid.scheme)
            q_CK[:, order[column]] = q_C
            error = (wanted - to_real(q_C, scale_C, point_C).double()) / factor_KK[column, column]
            w_CK[:, column + 1 : end] -= error[:, None] * factor_KK[column, column + 1 : end]
            errors[:, column - start] = error
        w_CK[:, end:] -= errors @ factor_KK[start:end, end:]
    return q_CK, scale_CG.reshape(-1), point_CG.reshape(-1)


def inverse_factor(hessian_KK: Tensor, damping: float) -> Tensor:
    """U, upper triangular, with U^T U = (H + damping * mean(diag H) * I)^-1; float64.

    A column whose inputs are all zero gets a diagonal of 1, which ties it to no other.
    """
    hessian = hessian_KK.double().clone()
    diagonal = torch.diagonal(hessian)
    diagonal[diagonal == 0] = 1.0
    extra = damping * float(diagonal.mean())
    for _ in range(20):  # more where the inputs are so alike that rounding makes H indefinite
        damped = hessian + extra * torch.eye(len(hessian), dtype=torch.float64)
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not failed:
                factor: Tensor = upper
                return factor
        extra = max(10 * extra, 1e-12 * float(diagonal.max()))
    return torch.diag(1 / torch.sqrt(diagonal + extra))


def _fitted(w_CK: Tensor, group: int, grid: Grid, fit: Fit) -> tuple[Tensor, Tensor]:
    w_Ng = cut(w_CK.float(), group)
    scale, zero_point = fit(w_Ng, w_Ng.amin(1), w_Ng.amax(1), grid)
    return scale.view(len(w_CK), -1), zero_point.view(len(w_CK), -1)
