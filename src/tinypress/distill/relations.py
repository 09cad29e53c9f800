"""What samples are to one another: the student may place them elsewhere, but not in another arrangement.

Axes: B samples, D numbers each (any shape behind B is flattened).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tinypress.distill.checks import require_pairs


class SimilarityPreserving(nn.Module):
    """Similarity-preserving distillation (Tung and Mori 2019, arXiv:1907.09682, eq. 1 to 4).

    loss = ‖ G_teacher - G_student ‖²_F / B²,  G the rows of Q Qᵀ [B, B] divided by their norms
    """

    def forward(self, student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
        """The loss, a scalar, of features [B, ...] of any widths.

        Raises:
            InputError: they are not of the same samples.
        """
        require_pairs("SimilarityPreserving()", student_feature, teacher_feature, 2)
        apart = self._similarities(student_feature) - self._similarities(teacher_feature)
        return apart.square().mean()

    def _similarities(self, feature: Tensor) -> Tensor:
        rows = feature.flatten(1)
        return nn.functional.normalize(rows @ rows.T, dim=1)


class RelationalDistance(nn.Module):
    """RKD by distances (Park et al. 2019, arXiv:1904.05068, eq. 4 to 6).

    loss = mean over pairs i ≠ j of huber(ψ(t_i, t_j) - ψ(s_i, s_j)),  ψ(a, b) = ‖a - b‖₂ / μ

    with μ the mean distance of all pairs of the batch, so that the student's scale is free. Huber with δ = 1.
    """

    def forward(self, student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
        """The loss, a scalar, of features [B, ...] of any widths, B > 1.

        Raises:
            InputError: they are not of the same samples, or one only.
        """
        require_pairs("RelationalDistance()", student_feature, teacher_feature, 2)
        student, teacher = (_distances(x) for x in (student_feature, teacher_feature))
        return nn.functional.smooth_l1_loss(student, teacher)


class RelationalAngle(nn.Module):
    """RKD by angles (Park et al. 2019, arXiv:1904.05068, eq. 7 and 8).

    loss = mean over triples of huber(cos∠ t_i t_j t_k - cos∠ s_i s_j s_k), i, j, k all different, Huber with δ = 1
    """

    def forward(self, student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
        """The loss, a scalar, of features [B, ...] of any widths, B > 2; it takes memory of B³ numbers.

        Raises:
            InputError: they are not of the same samples, or fewer than three.
        """
        require_pairs("RelationalAngle()", student_feature, teacher_feature, 3)
        student, teacher = (_angles(x) for x in (student_feature, teacher_feature))
        return nn.functional.smooth_l1_loss(student, teacher)


def _distances(feature: Tensor) -> Tensor:
    """Distances of all pairs i ≠ j divided by their mean: [B (B - 1)]."""
    rows = feature.flatten(1)
    other = ~torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    apart: Tensor = torch.linalg.vector_norm((rows[:, None] - rows[None])[other], dim=1)
    return apart / apart.mean().clamp_min(torch.finfo(apart.dtype).tiny)


def _angles(feature: Tensor) -> Tensor:
    """Cosines of the angles at j between the directions to i and k, for all i ≠ k: [B (B - 1) (B - 2)]."""
    rows = feature.flatten(1)
    towards = nn.functional.normalize(rows[None] - rows[:, None], dim=2)  # [j, i]: from j to i
    cosines = towards @ towards.transpose(1, 2)  # [j, i, k]
    one = torch.arange(len(rows), device=rows.device)
    j, i, k = one[:, None, None], one[None, :, None], one[None, None, :]
    chosen: Tensor = cosines[(i != j) & (k != j) & (i != k)]
    return chosen
