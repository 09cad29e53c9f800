"""Attention transfer: where in the image or the series a layer is active."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tinypress.distill.checks import require_pairs
from tinypress.errors import InputError


class AttentionTransfer(nn.Module):
    """Activation-based attention transfer (Zagoruyko and Komodakis 2017, arXiv:1612.03928, eq. 2).

    loss = ½ mean over samples of ‖ Q_student/‖Q_student‖₂ - Q_teacher/‖Q_teacher‖₂ ‖₂,  Q = Σ_c |A_c|^p

    Widths may differ and places may not. A layer that is silent everywhere has the map zero.

    Args:
        power: p of the map, above 0; 2 weighs the strongest channels most.
    """

    def __init__(self, power: float = 2.0) -> None:
        super().__init__()
        if isinstance(power, bool) or not power > 0:
            raise InputError(f"AttentionTransfer(power={power!r})", "power must be positive", "Give 2")
        self.power = power

    def forward(self, student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
        """The loss, a scalar, of features [B, C, ...] and [B, C', ...] of the same places.

        Raises:
            InputError: batch or places differ, or there are none.
        """
        call = "AttentionTransfer()"
        require_pairs(call, student_feature, teacher_feature, 1)
        if student_feature.dim() < 3 or student_feature.shape[2:] != teacher_feature.shape[2:]:
            raise InputError(
                f"{call}(student {tuple(student_feature.shape)}, teacher {tuple(teacher_feature.shape)})",
                "the layers have no places in common",
                "Choose layers [B, C, ...] of the same height and width",
            )
        apart = self._map(student_feature) - self._map(teacher_feature)
        loss: Tensor = 0.5 * torch.linalg.vector_norm(apart, dim=1).mean()
        return loss

    def _map(self, feature: Tensor) -> Tensor:
        return nn.functional.normalize(feature.abs().pow(self.power).sum(1).flatten(1), dim=1)
