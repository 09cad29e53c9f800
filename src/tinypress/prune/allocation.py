"""How a sparsity is shared among layers: evenly, by their shape, or by what their weights are worth.

Axes: O outputs, I inputs, then the sizes of a kernel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from tinypress.prune.sparsity import count_to_prune

Allocation = Literal["uniform", "erk", "lamp"]
ALLOCATIONS: tuple[Allocation, ...] = ("uniform", "erk", "lamp")


def erk_counts(call: str, shapes: Mapping[str, Sequence[int]], sparsity: float) -> dict[str, int]:
    """How many weights of each layer go by Erdős-Rényi-Kernel (Evci et al. 2020, arXiv:1911.11134, section 3).

    The density of a layer is ε (O + I + w + h) / (O I w h), at most 1; ε is the one at which
    round(sparsity * number of weights) go in all. Small layers keep more. Fractions of weights go to the layers
    with the largest remainders, the earlier first.

    Raises:
        InputError: ``sparsity`` is not a number from 0 to 1.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    gone = count_to_prune(call, sparsity, sum(sizes.values()))
    left = sum(sizes.values()) - gone
    raw = {name: float(sum(shape)) for name, shape in shapes.items()}  # density times size, up to ε
    dense: set[str] = set()
    while True:
        open_ = [name for name in shapes if name not in dense]
        total = sum(raw[name] for name in open_)
        room = left - sum(sizes[name] for name in dense)
        scale = room / total if total else 0.0
        full = {name for name in open_ if scale * raw[name] >= sizes[name]}
        if not full:
            break
        dense |= full
    exact = {name: float(sizes[name]) if name in dense else scale * raw[name] for name in shapes}
    kept = {name: math.floor(value) for name, value in exact.items()}
    missing = left - sum(kept.values())
    by_remainder = sorted(shapes, key=lambda name: kept[name] - exact[name])
    for name in [name for name in by_remainder if kept[name] < sizes[name]][:missing]:
        kept[name] += 1
    return {name: sizes[name] - kept[name] for name in shapes}


def lamp_scores(flat: Tensor) -> Tensor:
    """LAMP of each weight of a layer, float64 (Lee et al. 2021, arXiv:2010.07611, eq. 1).

    score(u) = w_u² / Σ_{v: |w_v| ≥ |w_u|} w_v², with the weights sorted and the earlier first among equals

    A layer's largest weight has the score 1, so that no layer is emptied while another has more than one weight left.
    """
    squares = flat.detach().to(torch.float64).square()
    order = squares.sort(stable=True).indices
    ordered = squares[order]
    rest = ordered.flip(0).cumsum(0).flip(0)
    scores = torch.zeros_like(squares)
    scores[order] = torch.where(rest > 0, ordered / rest, torch.zeros_like(rest))
    return scores
