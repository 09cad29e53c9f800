"""What the step ``distill`` learns from: labels and soft targets, or embeddings and hidden states without labels."""

from __future__ import annotations

from collections.abc import Mapping

from tinypress.distill import (
    CosineLoss,
    IndependentClasses,
    InfoNCE,
    OnOutputs,
    OnTokens,
    Term,
    TokenCosine,
    WeightedSum,
)
from tinypress.press.engine import Engine
from tinypress.press.step import Distill
from tinypress.press.trained_quantized import teaching_loss
from tinypress.protocols import Loss
from tinypress.task import Task


def loss_of(step: Distill, task: Task, engine: Engine) -> Loss | Term:
    """The loss of ``step``; an engine's own is asked where targets are labels of classes."""
    if step.loss == "embeddings":
        return _without_labels(dict(step.hidden), step.mask_input)
    assert task.loss is not None
    if step.loss == "independent":
        return IndependentClasses(step.alpha, task.loss)
    return teaching_loss(task, engine.loss, step.temperature, step.alpha)


def _without_labels(hidden: Mapping[str, str], mask_input: int) -> WeightedSum:
    """Cosine and contrast of the outputs, and the mean cosine of each pair of hidden states."""
    terms: dict[str, tuple[float, Term]] = {
        "cosine": (1.0, OnOutputs(CosineLoss())),
        "contrast": (0.1, OnOutputs(InfoNCE(0.05))),
    }
    for layer in hidden:
        terms[f"hidden {layer}"] = (1.0 / len(hidden), OnTokens(TokenCosine(), mask_input, layer))
    return WeightedSum(terms)
