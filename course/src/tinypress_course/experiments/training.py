"""Train a network of another architecture on a task's data, through the press, and measure its file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from tinypress import Recipe, Task, press


@dataclass(frozen=True)
class Trained:
    """What was measured on the file of one trained network; ``accuracy`` is on validation, 0..100."""

    parameters: int
    macs: int
    file_bytes: int
    latency_ms: float
    accuracy: float


def train_and_measure(task: Task, network: nn.Module, folder: Path, epochs: int) -> Trained:
    """Train a copy of ``network`` on the task's labels for ``epochs`` and measure the ONNX file of it.

    Networks are made comparable by the same data, the same number of epochs and the same loss.
    """
    other = replace(task, model=network, build=None)
    recipes = [
        Recipe(name="untrained", role="baseline"),
        Recipe.model_validate({"name": "trained", "steps": [{"technique": "recover", "epochs": epochs}]}),
    ]
    measured = press(other, recipes, folder, fresh=True).candidate("trained")
    latency = measured.latency_ms
    return Trained(
        parameters=measured.parameters,
        macs=measured.macs or 0,
        file_bytes=measured.artifact.bytes,
        latency_ms=latency.median if latency else 0.0,
        accuracy=100 * measured.validation.value,
    )
