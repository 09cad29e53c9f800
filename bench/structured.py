"""Structured pruning beside Torch-Pruning: from a network to one of half the width, analysis included.

Both remove half of every group's neurons by the L2 norm over the group; attention loses whole heads. Ours is timed as
it is called, with the result run and compared with the whole network masked, and without that, as Torch-Pruning leaves
it to its user.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from bench.peer import pruned
from bench.timing import interleaved, ratio_spread
from tinypress.shrink import prune_structured

MIB = 1 << 20


class Logits(nn.Module):
    """Only what a classifier says."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x).logits
        return logits


def _networks() -> dict[str, tuple[Callable[[], nn.Module], Tensor]]:
    image, words = torch.randn(1, 3, 224, 224), torch.randint(0, 30_000, (1, 128))
    return {
        "ResNet-50": (
            lambda: transformers.ResNetForImageClassification(transformers.ResNetConfig(num_labels=1000)), image
        ),
        "MobileNetV2": (
            lambda: transformers.MobileNetV2ForImageClassification(
                transformers.MobileNetV2Config(num_labels=1000)
            ),
            image,
        ),
        "ViT-B": (
            lambda: transformers.ViTForImageClassification(transformers.ViTConfig(num_labels=1000)), image
        ),
        "DistilBERT": (
            lambda: transformers.DistilBertForSequenceClassification(transformers.DistilBertConfig()), words
        ),
    }  # fmt: skip


def _heads(model: nn.Module) -> dict[nn.Module, int]:
    """Torch-Pruning is told which layers make heads, and how many."""
    count = getattr(getattr(model, "model", model).config, "num_attention_heads", 0)
    named = ("query", "key", "value", "q_proj", "k_proj", "v_proj", "q_lin", "k_lin", "v_lin")
    return {layer: count for name, layer in model.named_modules() if name.rpartition(".")[2] in named}


def theirs(model: nn.Module, example: Tensor) -> nn.Module:
    """Torch-Pruning on ``model``, which it changes."""
    return pruned(
        model, (example,), 0.5, num_heads=_heads(model), prune_num_heads=True, head_pruning_ratio=0.5
    )


def ours(model: nn.Module, example: Tensor, compare: bool = True) -> nn.Module:
    """``prune_structured`` at the same ratio."""
    return prune_structured(model, (example,), ratio=0.5, compare=compare).model


def measure(repeats: int, only: tuple[str, ...] = ()) -> dict[str, Any]:
    """Time of both for each network, and the parameters that each leaves."""
    results: dict[str, Any] = {}
    for name, (build, example) in _networks().items():
        if only and name not in only:
            continue
        torch.manual_seed(0)
        model = Logits(build()).eval()
        size = sum(parameter.numel() * 4 for parameter in model.parameters())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            copies = [copy.deepcopy(model) for _ in range(repeats)]
            timings = interleaved(
                {
                    "ours": partial(ours, model, example),
                    "ours, not compared": partial(ours, model, example, compare=False),
                    "theirs": lambda copies=copies, x=example: theirs(copies.pop(), x),  # type: ignore[misc]
                },
                repeats,
                room_bytes={
                    "ours": 2 * size + 256 * MIB,
                    "ours, not compared": 2 * size + 256 * MIB,
                    "theirs": size + 256 * MIB,
                },
            )  # fmt: skip
            left = {"ours": ours(model, example), "theirs": theirs(copy.deepcopy(model), example)}
        results[name] = {
            "parameters": sum(p.numel() for p in model.parameters()),
            **{f"parameters_{side}": sum(p.numel() for p in m.parameters()) for side, m in left.items()},
            **{side: timing.as_json() for side, timing in timings.items()},
            "times_faster": {
                name: ratio_spread(timings["theirs"], timing)
                for name, timing in timings.items()
                if name != "theirs"
            },
        }
    return results
