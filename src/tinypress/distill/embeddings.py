"""Teaching embeddings: each near the teacher's own, or nearer to it than to all others of the batch.

Axes: B samples, D numbers of an embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tinypress.distill.checks import require_alike, require_positive


class CosineLoss(nn.Module):
    """loss = mean over samples of 1 - cos(student, teacher): the direction counts and the length does not."""

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar, of embeddings [..., D] of one shape.

        Raises:
            InputError: they differ in shape.
        """
        require_alike("CosineLoss()", student, teacher, 2, "Give both [B, D], or a projector before")
        return (1 - nn.functional.cosine_similarity(student, teacher, dim=-1)).mean()


class InfoNCE(nn.Module):
    """In-batch contrast (van den Oord et al. 2018, arXiv:1807.03748, eq. 4, with cosine similarity).

    loss = - mean over i of log( exp(cos(s_i, t_i) / τ) / Σ_j exp(cos(s_i, t_j) / τ) )

    The other samples of the batch are the negatives, so that its size matters: B alike embeddings cost log B.

    Args:
        temperature: τ > 0.
    """

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        require_positive(f"InfoNCE(temperature={temperature!r})", temperature=temperature)
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar, of embeddings [B, D] of one shape.

        Raises:
            InputError: they differ in shape.
        """
        require_alike("InfoNCE()", student, teacher, 2, "Give both [B, D], or a projector before")
        own, theirs = (nn.functional.normalize(x.flatten(1), dim=1) for x in (student, teacher))
        similar = own @ theirs.T / self.temperature
        return nn.functional.cross_entropy(similar, torch.arange(len(own), device=own.device))
