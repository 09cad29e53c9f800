"""AdaRound: whether each weight goes up or down is learnt from what the layer makes (Nagel et al. 2020, 2004.10568).

Rounding to nearest is the best for each weight alone, not for their sum. With the scale s fixed, a weight becomes

    W~ = s clip(floor(W / s) + h(V), least, most),    h(V) = clip(1.2 sigmoid(V) - 0.1, 0, 1)        (equations 22, 23)

and V is found by gradient descent on the outputs of the layer, on inputs x^ from the quantized layers before it
against what the float layer made of its float inputs x (equation 25, here without the activation):

    || W x - W~ x^ ||^2 + lambda sum(1 - |2 h(V) - 1|^beta)                                          (equations 21, 24)

beta falls from 20 to 2, so that h(V) is free to move at first and is driven to 0 or 1 in the end. V begins where W~
is W. A weight that is exactly zero stays so. In the end what is left between 0 and 1 is rounded, and where rounding to
nearest does better on the samples (so few that they tell nothing, say), it is taken instead.

Axes: J groups of a convolution, N places that the layer is applied to, K weights of a row, O rows of one group.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tinypress.quantize.affine import integer_dtype, integer_range, to_integers
from tinypress.quantize.rows import Fit, Grid, check_range, cut, group_shape, whole_range

_STEPS = 500
_BATCH = 256
_RATE = 0.03
_LAMBDA = 1.0
_WARM_UP = 0.2
_BETA = (20.0, 2.0)
_GAMMA, _ZETA = -0.1, 1.1


def adaround_rows(
    call: str,
    w_JOK: Tensor,
    float_outputs_JNO: Tensor,
    inputs_JNK: Tensor,
    grid: Grid,
    *,
    fit: Fit = whole_range,
    steps: int = _STEPS,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """The integers [J * O, K] of rows, with scale and zero point [J * O * G].

    Args:
        float_outputs_JNO: what the float layer made, without its bias.
        inputs_JNK: what the layers before it, quantized, feed to the layer in the same places.

    Raises:
        ModelError: a weight is NaN, infinite or beyond 1e38.
    """
    groups_J, rows_O, width = w_JOK.shape
    w_CK = w_JOK.reshape(-1, width).float()
    check_range(call, w_CK.amin(), w_CK.amax())
    group, each = group_shape(width, grid.group_size)
    cells = cut(w_CK, group)
    scale, zero_point = fit(cells, cells.amin(1), cells.amax(1), grid)
    s_CK, z_CK = (_spread(x.view(-1, each), group, width) for x in (scale, zero_point))
    nearest_CK = to_integers(w_CK, s_CK, z_CK, grid.bits, grid.scheme)
    least, most = integer_range(grid.bits, grid.scheme)
    floor_CK = torch.floor(w_CK / s_CK)
    rest_CK = (w_CK / s_CK - floor_CK).clamp(1e-4, 1 - 1e-4)
    v_CK = torch.log((rest_CK - _GAMMA) / (_ZETA - rest_CK)).requires_grad_()
    free_CK = w_CK != 0

    def real(up_CK: Tensor) -> Tensor:
        q_CK = torch.where(free_CK, (floor_CK + up_CK + z_CK).clamp(least, most), z_CK.to(up_CK.dtype))
        return ((q_CK - z_CK) * s_CK).view(groups_J, rows_O, width)

    def error(up_CK: Tensor) -> float:
        made = torch.einsum("jnk,jok->jno", inputs_JNK, real(up_CK))
        return float((made - float_outputs_JNO).double().square().mean())

    places = inputs_JNK.shape[1]
    draw = torch.Generator().manual_seed(seed)
    # in units of the error of rounding to nearest, so that lambda means the same everywhere
    nearest_up_CK = nearest_CK.float() - z_CK - floor_CK
    unit = error(nearest_up_CK)
    if not unit:
        return nearest_CK, scale, zero_point
    optimizer = torch.optim.Adam([v_CK], _RATE)
    with torch.enable_grad():
        for step in range(steps):
            chosen = torch.randint(places, (min(_BATCH, places),), generator=draw)
            up = _rectified(v_CK)
            made = torch.einsum("jnk,jok->jno", inputs_JNK[:, chosen], real(up))
            loss = (made - float_outputs_JNO[:, chosen]).square().mean() / unit
            done = (step / steps - _WARM_UP) / (1 - _WARM_UP)
            if done > 0:
                beta = _BETA[0] + (_BETA[1] - _BETA[0]) * done
                loss = loss + _LAMBDA * (1 - (2 * up - 1).abs().pow(beta)).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with torch.no_grad():
        learnt_CK = (_rectified(v_CK) >= 0.5).float()
        if error(learnt_CK) < unit:
            q_CK = torch.where(free_CK, (floor_CK + learnt_CK + z_CK).clamp(least, most), z_CK.float())
            return q_CK.to(integer_dtype(grid.scheme)), scale, zero_point
    return nearest_CK, scale, zero_point


def _rectified(v: Tensor) -> Tensor:
    return (torch.sigmoid(v) * (_ZETA - _GAMMA) + _GAMMA).clamp(0, 1)


def _spread(x_CG: Tensor, group: int, width: int) -> Tensor:
    """One number a weight from one number a group: [C, K]."""
    return x_CG.repeat_interleave(group, 1)[:, :width]
