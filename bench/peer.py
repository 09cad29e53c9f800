"""Torch-Pruning by its group L2 norm: at a ratio, or at the smallest whose network has no more MACs than allowed."""

from __future__ import annotations

import copy
from typing import Any

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
        cut = pruned(copy.deepcopy(model), example, middle, round_to=multiple)
        low, high = (low, middle) if macs(cut, example) <= most else (middle, high)
    return pruned(copy.deepcopy(model), example, high, round_to=multiple)


def pruned(model: nn.Module, example: tuple[Tensor, ...], ratio: float, **settings: Any) -> nn.Module:
    """``model``, changed in place; its last linear layer keeps its outputs, ``settings`` are the pruner's own."""
    last = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
    torch_pruning.pruner.BasePruner(
        model,
        example,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=[last],
        **settings,
    ).step()
    return model
