"""Soft targets in two parts: how sure the teacher is of the right class, and what it thinks of the others.

Axes: B samples, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tinypress.distill.checks import require_alike, require_labels, require_positive, require_weight
from tinypress.errors import InputError


class DecoupledLoss(nn.Module):
    """Decoupled knowledge distillation (Zhao et al. 2022, arXiv:2203.08679, eq. 7).

    DKD = alpha * TCKD + beta * NCKD, both at temperature T and times T²

    TCKD = KL(b_teacher ‖ b_student), b = [p_target, 1 - p_target]; NCKD = KL(p̂_teacher ‖ p̂_student), p̂ the
    probabilities of the other classes among themselves. Soft targets as usual are TCKD + (1 - p_target) NCKD with
    the teacher's p_target (eq. 6): what a sure teacher says of the other classes is lost there, and here it is not.

    Args:
        alpha: weight of the target class part; ``beta`` is that of the other classes.

    Raises:
        InputError: a value out of range.
    """

    def __init__(self, temperature: float = 4.0, alpha: float = 1.0, beta: float = 8.0) -> None:
        super().__init__()
        call = f"DecoupledLoss(temperature={temperature!r}, alpha={alpha!r}, beta={beta!r})"
        require_positive(call, temperature=temperature)
        require_weight(call, alpha=alpha, beta=beta)
        self.temperature, self.alpha, self.beta = temperature, alpha, beta

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar, of logits [B, C] of C > 1 classes and class indices [B]."""
        target, others = decoupled_parts(student_logits, teacher_logits, labels, self.temperature)
        return self.temperature**2 * (self.alpha * target + self.beta * others)


def decoupled_parts(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """TCKD and NCKD, two scalars (means over samples) without the factor T².

    Raises:
        InputError: the logits differ in shape or have one class.
        DataError: ``labels`` are not class indices [B].
    """
    call = "DecoupledLoss()"
    require_alike(call, student_logits, teacher_logits, 2, "Give both [B, C] logits")
    if student_logits.dim() != 2:
        raise InputError(call, f"logits are {tuple(student_logits.shape)}", "Give [B, C] logits")
    samples, classes = student_logits.shape
    require_labels(call, labels, samples, classes)
    if classes < 2:
        raise InputError(call, "there is one class only", "Give logits of two classes or more")
    target = nn.functional.one_hot(labels, classes).bool()
    binary, others = zip(
        *(_split(logits / temperature, target) for logits in (student_logits, teacher_logits)), strict=True
    )
    return _divergence(*binary), _divergence(*others)


def _split(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Log probabilities [B, 2] of the target class and of all others, and [B, C-1] among the others."""
    of_others = logits[~target].view(len(logits), -1)
    rest = torch.logsumexp(of_others, 1)
    binary = torch.log_softmax(torch.stack([logits[target], rest], 1), 1)
    return binary, torch.log_softmax(of_others, 1)


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    return nn.functional.kl_div(student, teacher, reduction="batchmean", log_target=True)
