"""Teaching numbers: the teacher's outputs bound what the student is asked for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tinypress.distill.checks import require_alike, require_weight


class BoundedRegression(nn.Module):
    """Regression with the teacher as a bound (Chen et al. 2017, "Learning Efficient Object Detection Models with
    Knowledge Distillation", eq. 4 and 5).

    loss = mean over samples of ‖s - y‖² + weight * (‖s - y‖² where ‖s - y‖² + margin > ‖t - y‖², else 0)

    A student that is nearer to the target than the teacher by the margin is left to the target alone. Plain
    matching is ``MatchingLoss``.

    Args:
        weight: ν of the paper; ``margin`` is m, in squared units of the targets.
    """

    def __init__(self, weight: float = 0.5, margin: float = 0.0) -> None:
        super().__init__()
        require_weight(f"BoundedRegression({weight!r}, {margin!r})", weight=weight, margin=margin)
        self.weight, self.margin = weight, margin

    def forward(self, student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
        """The loss, a scalar, of outputs [B, ...] and targets of one shape.

        Raises:
            InputError: they differ in shape.
        """
        call = "BoundedRegression()"
        require_alike(call, student, teacher, 1, "Give the student the teacher's output shape")
        require_alike(call, student, targets, 1, "Give targets of the outputs' shape")
        own = (
            (student - targets).square().flatten(1).sum(1) if student.dim() > 1 else (student - targets) ** 2
        )
        theirs = (teacher - targets).square().reshape(len(own), -1).sum(1)
        worse = own.detach() + self.margin > theirs
        return (own + self.weight * torch.where(worse, own, torch.zeros_like(own))).mean()
