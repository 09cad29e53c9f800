"""What a student learns from: the teacher's soft targets together with the labels.

Axes: B samples, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from tinypress.errors import DataError, InputError


class DistillationLoss(nn.Module):
    """Soft targets and labels (Hinton, Vinyals, Dean 2015, arXiv:1503.02531, §2).

    loss = alpha * T² * KL(softmax(teacher / T) ‖ softmax(student / T)) + (1 - alpha) * CE(student, labels)

    Gradients of the soft part shrink by 1/T²; the factor T² keeps both parts in proportion when T changes.
    Equal logits give a soft part of exactly zero.

    Args:
        temperature: T > 0; higher shows more of what the teacher thinks of the wrong classes.
        alpha: weight of the soft part, 0 (labels alone) to 1 (teacher alone: no label is looked at).

    Raises:
        InputError: a value out of range.
    """

    def __init__(self, temperature: float = 4.0, alpha: float = 0.7) -> None:
        super().__init__()
        call = f"DistillationLoss(temperature={temperature!r}, alpha={alpha!r})"
        if isinstance(temperature, bool) or not (math.isfinite(temperature) and temperature > 0):
            raise InputError(call, "the temperature must be a positive number", "Give 1 to 20; 4 is usual")
        if isinstance(alpha, bool) or not 0 <= alpha <= 1:
            raise InputError(
                call, "alpha must lie in 0..1", "Give the weight of the soft targets, such as 0.7"
            )
        self.temperature = float(temperature)
        self.alpha = float(alpha)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar, of logits [B, C], teacher logits [B, C] and class indices [B]."""
        call = (
            f"DistillationLoss()(student {tuple(student_logits.shape)}, teacher {tuple(teacher_logits.shape)}, "
            f"labels {tuple(labels.shape)})"
        )
        if student_logits.shape != teacher_logits.shape or student_logits.dim() < 2:
            raise InputError(call, "student and teacher differ in shape", "Give both [B, C] logits")
        classes = student_logits.shape[1]
        if self.alpha < 1 and (
            labels.is_floating_point()
            or (labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < classes)
        ):
            raise DataError(call, f"labels are not class indices in 0..{classes - 1}", "Check the targets")
        temperature = self.temperature
        soft = functional.kl_div(
            functional.log_softmax(student_logits / temperature, dim=1),
            functional.log_softmax(teacher_logits / temperature, dim=1),
            reduction="batchmean",
            log_target=True,
        )
        if self.alpha == 1:
            return temperature**2 * soft
        hard = functional.cross_entropy(student_logits, labels)
        return self.alpha * temperature**2 * soft + (1 - self.alpha) * hard


class MatchingLoss(nn.Module):
    """For outputs that are no logits (regression, embeddings): mean squared distance to the teacher's outputs.

    loss = alpha * mean((student - teacher)²) + (1 - alpha) * task_loss(student, targets)
    """

    def __init__(self, alpha: float, task_loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        if isinstance(alpha, bool) or not 0 <= alpha <= 1:
            raise InputError(f"MatchingLoss(alpha={alpha!r})", "alpha must lie in 0..1", "Give 0.7 or so")
        self.alpha = alpha
        self.task_loss = task_loss

    def forward(self, student_outputs: Tensor, teacher_outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss, a scalar; outputs of student and teacher have one shape."""
        if student_outputs.shape != teacher_outputs.shape:
            raise InputError(
                f"MatchingLoss()(student {tuple(student_outputs.shape)}, teacher {tuple(teacher_outputs.shape)})",
                "student and teacher differ in shape",
                "Give the student the teacher's output shape",
            )
        soft = functional.mse_loss(student_outputs, teacher_outputs)
        if self.alpha == 1:  # no label is looked at
            return soft
        hard = self.task_loss(student_outputs, targets)
        return self.alpha * soft + (1 - self.alpha) * hard
