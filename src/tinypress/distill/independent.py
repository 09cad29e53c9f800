"""Teaching classes that do not exclude each other: each has a probability of its own."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from tinypress.distill.checks import require_alike, require_weight
from tinypress.errors import InputError


class IndependentClasses(nn.Module):
    """Soft targets (Hinton et al. 2015, arXiv:1503.02531, §2) for sigmoids in place of a softmax.

    loss = alpha / B * Σ_bc BCE(sigmoid(s_bc), sigmoid(t_bc)) + (1 - alpha) * task_loss(s, targets)

    The sum over classes has the gradient sigmoid(s) - sigmoid(t) at each; it is least, but not zero, where the student
    says what the teacher says.

    Args:
        alpha: weight of the teacher, 0 (labels alone) to 1 (teacher alone).

    Raises:
        InputError: ``alpha`` out of range.
    """

    def __init__(self, alpha: float, task_loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        call = f"IndependentClasses(alpha={alpha!r})"
        require_weight(call, alpha=alpha)
        if alpha > 1:
            raise InputError(call, "alpha is above 1", "Give a weight from 0 to 1")
        self.alpha, self.task_loss = float(alpha), task_loss

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> Tensor:
        """The loss, a scalar, of logits [B, C] of one shape.

        Raises:
            InputError: they differ in shape.
        """
        require_alike(
            "IndependentClasses()", student_logits, teacher_logits, 2, "Give the student the teacher's head"
        )
        wanted = teacher_logits.sigmoid()
        soft = functional.binary_cross_entropy_with_logits(student_logits, wanted, reduction="sum")
        soft = soft / len(student_logits)
        if self.alpha == 1:
            return soft
        return self.alpha * soft + (1 - self.alpha) * self.task_loss(student_logits, targets)
