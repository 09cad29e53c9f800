"""Teaching sequences token by token, padding left out.

Axes: B samples, T tokens, V words, D hidden numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tinypress.distill.checks import require_alike, require_positive
from tinypress.errors import DataError

IGNORED = -100  # the label of a token that has none, as in torch's cross_entropy


class TokenDistillation(nn.Module):
    """Soft targets at every token (Hinton et al. 2015), averaged over all unmasked tokens of the batch.

    loss = T² / Σm * Σ_bt m_bt KL(softmax(teacher_bt / T) ‖ softmax(student_bt / T))

    Args:
        temperature: T > 0.
    """

    def __init__(self, temperature: float = 2.0) -> None:
        super().__init__()
        require_positive(f"TokenDistillation(temperature={temperature!r})", temperature=temperature)
        self.temperature = temperature

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, mask: Tensor) -> Tensor:
        """The loss, a scalar, of logits [B, T, V] and a mask [B, T] whose true (or 1) tokens count.

        Raises:
            InputError: the logits differ in shape.
            DataError: the mask does not fit, or masks all.
        """
        call = "TokenDistillation()"
        require_alike(call, student_logits, teacher_logits, 3, "Give both [B, T, V] logits")
        counted = counted_tokens(call, mask, student_logits)
        divergence = nn.functional.kl_div(
            torch.log_softmax(student_logits[counted] / self.temperature, 1),
            torch.log_softmax(teacher_logits[counted] / self.temperature, 1),
            reduction="batchmean",
            log_target=True,
        )
        return self.temperature**2 * divergence


class TokenCrossEntropy(nn.Module):
    """The mean cross-entropy over the tokens that have a label; -100 is none (masked words, next words)."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar, of logits [B, T, V] and word indices [B, T]; 0 where no token has a label.

        Raises:
            DataError: the labels do not fit.
        """
        call = f"TokenCrossEntropy()(logits {tuple(logits.shape)}, labels {tuple(labels.shape)})"
        if logits.dim() != 3 or labels.shape != logits.shape[:2] or labels.is_floating_point():
            raise DataError(call, "labels are not one word index a token", "Give [B, T] whole numbers")
        known = labels != IGNORED
        if bool(((labels < 0) | (labels >= logits.shape[2]))[known].any()):
            raise DataError(call, f"a label is outside 0..{logits.shape[2] - 1}", "Use -100 for no label")
        total = nn.functional.cross_entropy(logits[known], labels[known], reduction="sum")
        return total / known.sum().clamp_min(1)


class TokenCosine(nn.Module):
    """DistilBERT's third part: mean of 1 - cos over the hidden states of unmasked tokens (Sanh et al. 2019)."""

    def forward(self, student_hidden: Tensor, teacher_hidden: Tensor, mask: Tensor) -> Tensor:
        """The loss, a scalar, of hidden states [B, T, D] of one shape and a mask [B, T].

        Raises:
            InputError: the states differ in shape.
            DataError: the mask does not fit, or masks all.
        """
        call = "TokenCosine()"
        require_alike(call, student_hidden, teacher_hidden, 3, "Give both [B, T, D] hidden states")
        counted = counted_tokens(call, mask, student_hidden)
        return (
            1 - nn.functional.cosine_similarity(student_hidden[counted], teacher_hidden[counted], dim=1)
        ).mean()


def counted_tokens(call: str, mask: Tensor, of: Tensor) -> Tensor:
    """``mask`` as booleans [B, T], for ``of`` [B, T, ...].

    Raises:
        DataError: it has another shape, other values than 0 and 1, or no token that counts.
    """
    given = f"{call}(mask {tuple(mask.shape)} {mask.dtype}, tokens {tuple(of.shape)})"
    if mask.shape != of.shape[:2]:
        raise DataError(given, "the mask is not one value a token", "Give [B, T]")
    if mask.dtype != torch.bool and bool(((mask != 0) & (mask != 1)).any()):
        raise DataError(given, "the mask holds other values than 0 and 1", "Give 1 for tokens that count")
    counted = mask.bool()
    if not bool(counted.any()):
        raise DataError(given, "every token is masked", "Leave samples without tokens out")
    return counted
