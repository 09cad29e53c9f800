"""Feature matching: a layer of the student, through a learnt projector, against a layer of the teacher."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tinypress.distill.checks import require_alike
from tinypress.errors import InputError


class FeatureMatching(nn.Module):
    """FitNets' hints (Romero et al. 2015, arXiv:1412.6550, eq. 3): half the squared distance after a projector.

    loss = ½ mean((teacher - P(student))²), the mean over all elements so that layers of any size weigh alike

    The projector P is linear over channels: a matrix [teacher_width, student_width] with a bias at every position.
    It is learnt together with the student and thrown away afterwards. It begins as the identity where widths are
    equal, otherwise from ``seed``.

    Args:
        student_width: channels of the student's layer; ``teacher_width`` those of the teacher's.
        channels: ``first`` for [B, C, ...] (convolutions), ``last`` for [B, ..., C] (transformers); alike for [B, C].

    Raises:
        InputError: a width below 1, or ``channels`` is something else.
    """

    def __init__(
        self, student_width: int, teacher_width: int, *, channels: str = "first", seed: int = 0
    ) -> None:
        super().__init__()
        call = f"FeatureMatching({student_width!r}, {teacher_width!r}, channels={channels!r})"
        if student_width < 1 or teacher_width < 1:
            raise InputError(call, "a width is below 1", "Give the channels of both layers")
        if channels not in ("first", "last"):
            raise InputError(call, f"channels is {channels!r}", "Give 'first' or 'last'")
        self.axis = 1 if channels == "first" else -1
        weight = torch.eye(teacher_width, student_width)
        if student_width != teacher_width:
            generator = torch.Generator().manual_seed(seed)
            weight = torch.randn(teacher_width, student_width, generator=generator) / student_width**0.5
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(teacher_width))

    def forward(self, student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
        """The loss, a scalar; both features have one shape but for their channels.

        Raises:
            InputError: they do not, or a width is not the one given.
        """
        width = student_feature.shape[self.axis] if student_feature.dim() > 1 else None
        if width != self.weight.shape[1]:
            raise InputError(
                f"FeatureMatching()(student {tuple(student_feature.shape)})",
                f"the projector was made for {self.weight.shape[1]} channels",
                "Give the layer's width and channels='first' or 'last'",
            )
        moved = student_feature.movedim(self.axis, -1)
        projected = nn.functional.linear(moved, self.weight, self.bias).movedim(-1, self.axis)
        remedy = "Choose layers of one size, and give the teacher's width"
        require_alike("FeatureMatching()", projected, teacher_feature, 2, remedy)
        return 0.5 * nn.functional.mse_loss(projected, teacher_feature)
