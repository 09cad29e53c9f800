"""DistilBERT's three losses as one."""

from __future__ import annotations

from tinypress.distill.lesson import OnTargets, OnTokens, WeightedSum
from tinypress.distill.tokens import TokenCosine, TokenCrossEntropy, TokenDistillation


def triple_loss(
    hidden: str,
    *,
    mask_input: int = 1,
    temperature: float = 2.0,
    soft: float = 5.0,
    hard: float = 2.0,
    cosine: float = 1.0,
) -> WeightedSum:
    """soft * T² KL(teacher ‖ student) + hard * cross-entropy of the words + cosine * (1 - cos of hidden states).

    Sanh et al. 2019, "DistilBERT", arXiv:1910.01108, section 3. Targets are word indices [B, T] with -100 where the
    language model is asked for nothing; outputs are logits [B, T, V].

    Args:
        hidden: the student's layer whose hidden states [B, T, D] are compared; name the teacher's in ``features``.
        mask_input: which of the network's inputs is the attention mask [B, T].

    Raises:
        InputError: a weight or the temperature is out of range.
    """
    return WeightedSum(
        {
            "soft": (soft, OnTokens(TokenDistillation(temperature), mask_input)),
            "hard": (hard, OnTargets(TokenCrossEntropy())),
            "cosine": (cosine, OnTokens(TokenCosine(), mask_input, hidden)),
        }
    )
