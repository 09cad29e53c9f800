"""Exact global magnitude pruning beside ``torch.nn.utils.prune.global_unstructured``."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from bench.memory import peak_extra_bytes
from bench.timing import interleaved, ratio_spread
from tinypress.prune import prune_model_by_magnitude

LAYERS = 10


def network(weights: int) -> nn.Sequential:
    """Ten Linear layers with about ``weights`` weights in all, normally distributed, without biases."""
    side = round((weights / LAYERS) ** 0.5)
    model = nn.Sequential(*(nn.Linear(side, side, bias=False) for _ in range(LAYERS)))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.02, generator=generator)
    return model


def ours(model: nn.Module, sparsity: float) -> nn.Module:
    return prune_model_by_magnitude(model, sparsity).model


def theirs(model: nn.Module, sparsity: float) -> nn.Module:
    """PyTorch's own pruner, masks made permanent; it changes the network it is given."""
    layers = [(layer, "weight") for layer in model.children()]
    torch_prune.global_unstructured(layers, torch_prune.L1Unstructured, amount=sparsity)
    for layer, name in layers:
        torch_prune.remove(layer, name)  # type: ignore[no-untyped-call]
    return model


def measure(weights: int, repeats: int, sparsity: float = 0.9) -> dict[str, object]:
    """Time of both, whether they keep the same weights, and the memory that ours needs.

    PyTorch's pruner gets a copy of the network in each round; making the copy is not part of its time.
    """
    model = network(weights)
    copies = [copy.deepcopy(model) for _ in range(repeats)]
    timings = interleaved(
        {"ours": lambda: ours(model, sparsity), "torch": lambda: theirs(copies.pop(), sparsity)},
        repeats,
        room_bytes={"ours": 2 * 4 * weights, "torch": 13 * 4 * weights},
        warm=frozenset({"ours"}),
    )
    mine, other = ours(model, sparsity), theirs(copy.deepcopy(model), sparsity)
    count = sum(parameter.numel() for parameter in model.parameters())
    extra, model_bytes = peak_extra_bytes(weights, sparsity)
    return {
        "weights": count,
        "sparsity": sparsity,
        "ours": timings["ours"].as_json(),
        "torch": timings["torch"].as_json(),
        "times_faster": ratio_spread(timings["torch"], timings["ours"]),
        **_agreement(model, mine, other, round(sparsity * count)),
        "peak_extra_bytes": extra,
        "model_bytes": model_bytes,
        "peak_extra_per_model": extra / model_bytes,
    }


def _agreement(model: nn.Module, mine: nn.Module, other: nn.Module, asked: int) -> dict[str, object]:
    """Whether the survivors differ only among weights of one magnitude, and whether the count is exact."""
    magnitudes: list[Tensor] = []
    zeros = 0
    for weight, a, b in zip(model.parameters(), mine.parameters(), other.parameters(), strict=True):
        differ = (a == 0) != (b == 0)
        magnitudes.append(weight[differ].abs())
        zeros += int((a == 0).sum())
    differing = torch.cat(magnitudes)
    return {
        "same_survivors_but_for_ties": len(torch.unique(differing)) <= 1,
        "survivors_that_differ": len(differing),
        "pruned_exactly_as_many": zeros == asked,
    }
