"""Architecture search in miniature: not the same share from every layer, but the shares that measure best.

As in Yang et al., "NetAdapt" (2018), algorithm 1, candidates are made by removing neurons and judged after a short
training; the search here draws them at random, which is the control that a cleverer search has to beat.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tinypress import Schedule, Task, prune_layer_neurons, train_with_distillation

LAYERS = ("conv1", "conv2", "conv3")


@dataclass(frozen=True)
class Found:
    """Neurons left in each layer, parameters of the network, accuracy on validation 0..100."""

    widths: tuple[int, ...]
    parameters: int
    accuracy: float


def search_widths(task: Task, candidates: int = 6, epochs: int = 2, seed: int = 0) -> list[Found]:
    """The watch network at half its widths (first), then at random ones of about as many parameters.

    Each is taught by the original for ``epochs``.
    """
    assert task.train is not None
    picks = random.Random(seed)
    shares = [(0.5, 0.5, 0.5)]
    aim = _parameters(_cut(task, shares[0]))
    while len(shares) < candidates:
        drawn = (picks.uniform(0, 0.8), picks.uniform(0.2, 0.8), picks.uniform(0.2, 0.8))
        if abs(_parameters(_cut(task, drawn)) / aim - 1) < 0.1:
            shares.append(drawn)
    found = []
    for share in shares:
        student = train_with_distillation(
            _cut(task, share), task.model, task.train, task.validation,
            schedule=Schedule(epochs=epochs, learning_rate=5e-4),
        ).model  # fmt: skip
        widths = tuple(len(student.get_parameter(f"{layer}.weight")) for layer in LAYERS)
        found.append(Found(widths, _parameters(student), _accuracy(student, task)))
    return found


def _cut(task: Task, shares: tuple[float, ...]) -> nn.Module:
    model = task.model
    for layer, share in zip(LAYERS, shares, strict=True):
        model = prune_layer_neurons(model, layer, share, task.example_inputs).model
    return model


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
def _accuracy(model: nn.Module, task: Task) -> float:
    right: Tensor = model.eval()(*task.validation.inputs).argmax(1) == task.validation.targets
    return 100 * right.double().mean().item()
