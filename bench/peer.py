"""Torch-Pruning at equal MACs: its group L2 norm, at the smallest ratio whose network costs no more."""

from __future__ import annotations

import copy

import torch_pruning
from torch import Tensor, nn

from tinypress.graph import trace
from tinypress.measure.compute import count_macs


def macs(model: nn.Module, example: tuple[Tensor, ...]) -> int:
    """MACs of one sample."""
    return count_macs(trace(model, example))


def within_macs(model: nn.Module, example: tuple[Tensor, ...], most: float, multiple: int = 1) -> nn.Module:
    """``model`` cut by Torch-Pruning to at most ``most`` MACs; all but its last linear layer may lose units."""
    low, high = 0.0, 0.95
    for _ in range(12):
        middle = (low + high) / 2
        cut = _cut(model, example, middle, multiple)
        low, high = (low, middle) if macs(cut, example) <= most else (middle, high)
    return _cut(model, example, high, multiple)


def _cut(model: nn.Module, example: tuple[Tensor, ...], ratio: float, multiple: int) -> nn.Module:
    model = copy.deepcopy(model)
    last = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
    torch_pruning.pruner.BasePruner(
        model,
        example,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        round_to=multiple,
        ignored_layers=[last],
    ).step()
    return model
