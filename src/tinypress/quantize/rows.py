"""A matrix of weights, row by row, as integers: what every way of choosing the scales shares.

Axes: C rows (output channels), K weights of one row, G groups of one row, N all groups of a block of rows,
g weights of one group. The last group of a row may be short; it is then filled up with zeros while its range
is looked for, which every range holds anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from tinypress.buffers import empty
from tinypress.errors import InputError, ModelError
from tinypress.quantize.affine import Scheme, integer_dtype, scale_and_zero_point, to_integers, to_real

_BLOCK = 1 << 19  # weights a step, so that its several operations find them in the cache
_LARGEST = 1e38  # beyond it the integers next to the range's ends would stand for infinity


@dataclass(frozen=True)
class Grid:
    """Which integers, and how many weights of a row share a scale (``None``: all of them)."""

    bits: int
    scheme: Scheme = "symmetric"
    group_size: int | None = None
    power_of_two: bool = False

    def scales(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point of ranges; see ``scale_and_zero_point``."""
        return scale_and_zero_point(low, high, self.bits, self.scheme, power_of_two=self.power_of_two)

    def integers(self, w_Ng: Tensor, scale_N: Tensor, zero_point_N: Tensor) -> Tensor:
        """The nearest integers of groups, [N, g]."""
        return to_integers(w_Ng, scale_N[:, None], zero_point_N[:, None], self.bits, self.scheme)

    def nearest(self, w_Ng: Tensor, scale_N: Tensor, zero_point_N: Tensor) -> Tensor:
        """What the nearest integers of groups stand for, [N, g] float32."""
        q_Ng = self.integers(w_Ng, scale_N, zero_point_N)
        return to_real(q_Ng, scale_N[:, None], zero_point_N[:, None])


Fit = Callable[[Tensor, Tensor, Tensor, Grid], tuple[Tensor, Tensor]]
"""From groups [N, g] with their least and largest weights [N] to a scale and a zero point of each, [N]."""


def whole_range(w_Ng: Tensor, low_N: Tensor, high_N: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Scale and zero point with which no weight is clipped: round to nearest."""
    return grid.scales(low_N, high_N)


def quantize_rows(call: str, w_CK: Tensor, grid: Grid, fit: Fit) -> tuple[Tensor, Tensor, Tensor]:
    """The nearest integers [C, K] under the scales that ``fit`` chooses; scale and zero point [C * G].

    Raises:
        ModelError: a weight is NaN, infinite or beyond 1e38.
    """
    channels, width = w_CK.shape
    group, groups = group_shape(width, grid.group_size)
    q_CK = empty(w_CK.numel(), integer_dtype(grid.scheme)).view(channels, width)
    scale, zero_point = torch.ones(channels * groups), torch.zeros(channels * groups, dtype=torch.int32)
    if not w_CK.numel():
        return q_CK, scale, zero_point
    missing = groups * group - width
    if missing:
        flat, out, step = w_CK, q_CK, rows_a_step(width)
    else:  # groups lie end to end, whatever row they are of
        flat, out, step = w_CK.reshape(-1, group), q_CK.view(-1, group), rows_a_step(group)
    scratch = torch.empty(min(len(flat), step) * (width + missing if missing else group))
    each = len(scale) // len(flat)  # scales of one row of ``flat``
    for part in parts(len(flat), step):
        block = cut(flat[part].float(), group) if missing else flat[part].float()
        low, high = block.amin(1), block.amax(1)  # twice as fast as aminmax
        check_range(call, low, high)
        s, z = fit(block, low, high, grid)
        places = slice(part.start * each, part.stop * each)
        scale[places], zero_point[places] = s, z
        room = scratch[: block.numel()].view(block.shape)
        where = None if missing else out[part]
        q = to_integers(block, s[:, None], z[:, None], grid.bits, grid.scheme, out=where, scratch=room)
        if missing:
            out[part] = q.view(-1, groups * group)[:, :width]
    return q_CK, scale, zero_point


def quantize_flat(call: str, flat: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
    """The nearest integers under one scale for all weights; integers [K], scale and zero point [1].

    Raises:
        ModelError: a weight is NaN, infinite or beyond 1e38.
    """
    ends = [(piece.amin(), piece.amax()) for piece in torch.split(flat, _BLOCK) if piece.numel()]
    low = torch.stack([low for low, _ in ends]).float().amin().view(1) if ends else torch.zeros(1)
    high = torch.stack([high for _, high in ends]).float().amax().view(1) if ends else torch.zeros(1)
    check_range(call, low, high)
    scale, zero_point = grid.scales(low, high)
    integers = empty(flat.numel(), integer_dtype(grid.scheme))
    scratch = torch.empty(min(_BLOCK, flat.numel()))
    for piece, out in zip(torch.split(flat, _BLOCK), torch.split(integers, _BLOCK), strict=True):
        room = scratch[: len(piece)]
        to_integers(piece.float(), scale, zero_point, grid.bits, grid.scheme, out=out, scratch=room)
    return integers, scale, zero_point


def real_rows(q_CK: Tensor, scale: Tensor, zero_point: Tensor, group_size: int | None) -> Tensor:
    """(q - zero_point) * scale of rows, [C, K] float32; one scale in all, per row or per group."""
    channels, width = q_CK.shape
    if not q_CK.numel():
        return torch.empty(channels, width)
    if group_size is None:
        return to_real(q_CK, scale.view(-1, 1), zero_point.view(-1, 1))
    full = width // group_size * group_size
    real = empty(q_CK.numel(), torch.float32).view(channels, width)
    s_CG, z_CG = scale.view(channels, -1), zero_point.view(channels, -1)
    for part in parts(channels, rows_a_step(width)):
        whole, s, z = real[part, :full], s_CG[part], z_CG[part]
        grouped = q_CK[part, :full].reshape(len(s), -1, group_size)
        count = full // group_size
        whole.copy_(to_real(grouped, s[:, :count, None], z[:, :count, None]).view(whole.shape))
        if full < width:
            real[part, full:] = to_real(q_CK[part, full:], s[:, count:], z[:, count:])
    return real


def cut(w_CK: Tensor, group: int) -> Tensor:
    """Rows as groups [C * G, group], the last of each row filled up with zeros."""
    missing = -w_CK.shape[1] % group
    return torch.nn.functional.pad(w_CK, (0, missing)).view(-1, group)


def group_shape(width: int, group_size: int | None) -> tuple[int, int]:
    """Weights of one group, and groups of one row of ``width`` weights."""
    group = max(1, width) if group_size is None else min(group_size, max(1, width))
    return group, 1 if group_size is None else -(-width // group)


def rows_a_step(width: int) -> int:
    """So many rows of ``width`` weights are worked on at a time."""
    return max(1, _BLOCK // width)


def parts(length: int, step: int) -> Iterator[slice]:
    """Slices of ``step`` that cover ``length``."""
    return (slice(start, start + step) for start in range(0, length, step))


def check_range(call: str, low: Tensor, high: Tensor) -> None:
    """Refuse NaN, infinity and what is beyond 1e38.

    Raises:
        ModelError: there is such a weight.
    """
    # written so that NaN, which compares false with everything, fails it too
    if not (bool((low >= -_LARGEST).all()) and bool((high <= _LARGEST).all())):
        raise ModelError(
            call,
            "the parameter 'weight' holds NaN, infinity or a magnitude over 1e38",
            "Look for the step of the training that diverged",
        )


def check_settings(call: str, bits: int, scheme: str, group_size: int | None) -> None:
    """Refuse settings outside of what this arithmetic knows.

    Raises:
        InputError: ``bits`` is not in 2..8, ``scheme`` unknown or ``group_size`` not a positive whole number.
    """
    if isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 8:
        raise InputError(call, f"bits is {bits!r}", "Give a whole number from 2 to 8")
    if scheme not in get_args(Scheme):
        raise InputError(call, f"scheme is {scheme!r}", "Give 'symmetric' or 'affine'")
    if group_size is None:
        return
    if isinstance(group_size, bool) or not isinstance(group_size, int) or not 1 <= group_size < 2**31:
        raise InputError(call, f"group_size is {group_size!r}", "Give a whole number such as 32, or None")
