"""What both engines are given: the watch network, its layers, and a batch of its data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tinypress import Task

LAYERS = ("conv1", "conv2", "conv3", "head")


@dataclass(frozen=True)
class Given:
    """Real material to call functions on; ``logits`` are the network's own on ``batch``."""

    task: Task
    layers: dict[str, nn.Module]
    batch: Tensor
    labels: Tensor
    logits: Tensor


def given_by(task: Task, samples: int = 64) -> Given:
    """The layers of ``task``'s network, and its first validation samples with what it says of them."""
    model = task.model.eval()
    part = task.validation.take(slice(0, samples))
    with torch.no_grad():
        logits = model(*part.inputs)
    return Given(
        task, {name: model.get_submodule(name) for name in LAYERS}, part.inputs[0], part.targets, logits
    )
