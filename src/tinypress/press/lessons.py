"""What the step ``distill`` learns from: labels and soft targets, or embeddings and hidden states without labels."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from tinypress.distill import (
    CosineLoss,
    IndependentClasses,
    InfoNCE,
    MatchingLoss,
    OnOutputs,
    OnTokens,
    Term,
    TokenCosine,
    WeightedSum,
)
from tinypress.press.engine import Engine
from tinypress.press.step import Distill
from tinypress.protocols import Loss, MakeLoss
from tinypress.task import Task


def loss_of(step: Distill, task: Task, engine: Engine) -> Loss | Term:
    """The loss of ``step``; an engine's own is asked where targets are labels of classes."""
    if step.loss == "embeddings":
        return embeddings_loss(dict(step.hidden), step.mask_input)
    assert task.loss is not None
    if step.loss == "independent":
        return IndependentClasses(step.alpha, task.loss)
    return teaching_loss(task, engine.loss, step.temperature, step.alpha)


def embeddings_loss(hidden: Mapping[str, str] | None = None, mask_input: int = 1) -> WeightedSum:
    """Cosine and contrast of the outputs, and the mean cosine of each pair of hidden states."""
    terms: dict[str, tuple[float, Term]] = {
        "cosine": (1.0, OnOutputs(CosineLoss())),
        "contrast": (0.1, OnOutputs(InfoNCE(0.05))),
    }
    for layer in hidden or {}:
        terms[f"hidden {layer}"] = (1.0 / len(hidden or {}), OnTokens(TokenCosine(), mask_input, layer))
    return WeightedSum(terms)


def teaching_loss(task: Task, make_loss: MakeLoss, temperature: float, alpha: float) -> Loss:
    """Soft targets where the task's targets are classes, else the distance to the teacher's outputs."""
    assert task.train is not None
    targets = task.train.targets
    if not targets.is_floating_point() and targets.dim() == 1:
        return make_loss(temperature=temperature, alpha=alpha)
    return MatchingLoss(alpha, task.loss if task.loss is not None else _no_loss)


def _no_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """For a task without a loss, where the teacher alone is asked."""
    return outputs.new_zeros(())
