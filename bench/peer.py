"""Torch-Pruning by its group L2 norm, or by Taylor over all groups: at a ratio, or at the smallest whose network has no
more MACs than allowed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch_pruning
from torch import Tensor, nn

from tinypress.graph import trace
from tinypress.measure.compute import count_macs

Loss = Callable[[nn.Module], Tensor]


def macs(model: nn.Module, example: tuple[Tensor, ...]) -> int:
    """MACs of one sample."""
    return count_macs(trace(model, example))


def within_macs(
    model: nn.Module,
    example: tuple[Tensor, ...],
    most: float,
    multiple: int = 1,
    losses: Sequence[Loss] = (),
    kept: Sequence[str] = (),
) -> nn.Module:
    """``model`` cut by Torch-Pruning to at most ``most`` MACs; all but its last linear layer and what is ``kept``
    may lose units.

    With ``losses`` it goes by their gradients, and over all groups together, else by norms and alike in each group.
    """
    slopes = _gradients(model, losses) if losses else []

    def cut_at(ratio: float) -> nn.Module:
        copied = copy.deepcopy(model)
        for parameter, slope in zip(copied.parameters(), slopes, strict=False):
            parameter.grad = slope.clone()
        settings = {"global_pruning": True, "importance": torch_pruning.importance.GroupTaylorImportance()}
        return pruned(copied, example, ratio, kept, round_to=multiple, **(settings if slopes else {}))

    low, high = 0.0, 0.95
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (low, middle) if macs(cut_at(middle), example) <= most else (middle, high)
    return cut_at(high)


def _gradients(model: nn.Module, losses: Sequence[Loss]) -> list[Tensor]:
    copied = copy.deepcopy(model).eval()
    for loss in losses:
        loss(copied).backward()  # type: ignore[no-untyped-call]
    return [parameter.grad for parameter in copied.parameters() if parameter.grad is not None]


def pruned(
    model: nn.Module, example: tuple[Tensor, ...], ratio: float, kept: Sequence[str] = (), **settings: Any
) -> nn.Module:
    """``model``, changed in place; its last linear layer and those ``kept`` keep their outputs, ``settings`` are the
    pruner's own."""
    last = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
    settings = {"importance": torch_pruning.importance.GroupMagnitudeImportance(p=2), **settings}
    torch_pruning.pruner.BasePruner(
        model,
        example,
        pruning_ratio=ratio,
        ignored_layers=[last, *map(model.get_submodule, kept)],
        **settings,
    ).step()
    for parameter in model.parameters():
        parameter.grad = None
    return model
