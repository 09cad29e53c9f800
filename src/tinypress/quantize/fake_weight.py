"""A weight that is trained as its integers will be: its steps, and what they make of it.

Axes as in ``rows.py``: C rows (output channels), K weights of one row, G groups of one row, g weights of one group.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tinypress.facts import QuantizedWeight
from tinypress.quantize.affine import to_integers
from tinypress.quantize.fake import fake_quantize, fake_quantize_learned
from tinypress.quantize.layer import packed_weight
from tinypress.quantize.mse import least_squared_error
from tinypress.quantize.rows import Grid, check_range, cut, group_shape, quantize_rows


class FakeWeight(nn.Module):
    """Scales of one weight [C, ...]: learnt, or those of its range as it is now.

    A learnt scale is start * exp(move), with ``move`` the parameter: it stays positive, and an optimizer that
    normalises its gradients (Adam) moves each scale by a share of itself. It starts where the squared error is
    least.

    Raises:
        ModelError: a weight is NaN, infinite or beyond 1e38.
    """

    def __init__(self, call: str, names: tuple[str, ...], weight: Tensor, grid: Grid, learned: bool) -> None:
        super().__init__()
        self.names, self.grid, self.learned = names, grid, learned
        rows = weight.detach().cpu().reshape(len(weight), -1)
        check_range(call, rows.amin().view(1), rows.amax().view(1))
        if learned:
            _, start, zero = quantize_rows(call, rows, grid, least_squared_error)
            self.register_buffer("start", start.to(weight.device))
            self.register_buffer("zero_point", zero.to(weight.device))
            self.move = nn.Parameter(torch.zeros_like(start, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight that its integers stand for, in its own shape and dtype; gradients flow to it and the steps."""
        rows = weight.float().reshape(len(weight), -1)
        scale, zero = self.scales(rows)
        scale_CK, zero_CK = (_along(x, rows, self.grid.group_size) for x in (scale, zero))
        if self.learned:
            group, _ = group_shape(rows.shape[1], self.grid.group_size)
            real = fake_quantize_learned(rows, scale_CK, zero_CK, self.grid.bits, self.grid.scheme, group)
        else:
            real = fake_quantize(rows, scale_CK, zero_CK, self.grid.bits, self.grid.scheme)
        return real.view(weight.shape).to(weight.dtype)

    def scales(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point [C * G] of the weight as it is."""
        if self.learned:
            assert isinstance(self.start, Tensor)
            assert isinstance(self.zero_point, Tensor)
            return self.start * torch.exp(self.move), self.zero_point
        with torch.no_grad():
            group, _ = group_shape(rows.shape[1], self.grid.group_size)
            grouped = cut(rows, group)
            return self.grid.scales(grouped.amin(1), grouped.amax(1))

    @torch.no_grad()
    def packed(self, weight: Tensor) -> QuantizedWeight:
        """The integers of ``weight``: what ``forward`` computes, as it ships."""
        rows = weight.detach().float().reshape(len(weight), -1)
        scale, zero = self.scales(rows)
        scale_CK, zero_CK = (_along(x, rows, self.grid.group_size) for x in (scale, zero))
        q_CK = to_integers(rows, scale_CK, zero_CK, self.grid.bits, self.grid.scheme)
        return packed_weight(
            q_CK.cpu(), scale.detach().clone().cpu(), zero.clone().cpu(), tuple(weight.shape), 0, self.grid
        )


def _along(values: Tensor, rows: Tensor, group_size: int | None) -> Tensor:
    """Values [C * G] as they broadcast against ``rows`` [C, K]."""
    per_row = values.view(len(rows), -1)
    if group_size is None:
        return per_row
    return per_row.repeat_interleave(group_size, 1)[:, : rows.shape[1]] if per_row.shape[1] > 1 else per_row
