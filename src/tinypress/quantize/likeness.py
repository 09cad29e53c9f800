"""How alike two sets of samples are: their scale, whether neighbours agree, whether their numbers are known.

Legend: N samples, C channels, J groups of samples that belong together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_SURE = 2.5  # standard errors


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of each channel, float64 [C], with the standard error of the mean."""

    mean_C: Tensor
    std_C: Tensor
    error_C: Tensor
    of_all: tuple[float, float]


def statistics(x: Tensor, groups: Tensor | None = None) -> Statistics:
    """The statistics of samples [N, C, ...]; rows of many numbers [N, C] count as one channel."""
    x = x.double()
    if x.dim() < 2 or (x.dim() == 2 and x.shape[1] > 64):
        x = x.reshape(len(x), 1, -1)
    x_NCK = x.reshape(len(x), x.shape[1], -1)
    mean_NC = x_NCK.mean(2)
    mean_C = mean_NC.mean(0)
    std_C = torch.sqrt((x_NCK - mean_C[:, None]).square().mean((0, 2)))
    owner = torch.arange(len(x)) if groups is None else _numbered(groups)
    count = int(owner.max()) + 1
    sums = torch.zeros(count, mean_NC.shape[1], dtype=torch.float64).index_add_(0, owner, mean_NC - mean_C)
    # the mean is a sum over groups, whose sizes differ
    error_C = torch.sqrt(sums.square().sum(0)) / len(x) if count > 1 else std_C
    return Statistics(mean_C, std_C, error_C, (float(x.mean()), float(x.std(correction=0))))


def _numbered(groups: Tensor) -> Tensor:
    """0, 1, ... for each group, [N]."""
    return torch.from_numpy(np.unique(groups.cpu().numpy(), return_inverse=True)[1].reshape(-1))


def statistics_of_rows(mean_C: Tensor, std_C: Tensor) -> Statistics:
    """Statistics that are known, such as those of a batch norm."""
    whole = float(mean_C.mean()), float(std_C.mean())
    return Statistics(mean_C, std_C, torch.zeros_like(mean_C), whole)


def far_from(given: Statistics, usual: Statistics, shift: float, stretch: float) -> bool:
    """Whether in half of the channels the mean or the standard deviation is elsewhere than the usual one.

    The mean may differ by ``shift`` of the usual standard deviation and by what chance explains, the standard
    deviation by a factor of ``stretch`` either way.
    """
    moves = usual.std_C > 1e-6 * usual.std_C.max()
    if not bool(moves.any()):
        return False
    unit = usual.std_C[moves]
    chance = _SURE * torch.hypot(given.error_C[moves], usual.error_C[moves])
    shifted = (given.mean_C[moves] - usual.mean_C[moves]).abs() > shift * unit + chance
    # a spread of few groups is as uncertain, in parts of itself, as their mean
    own = given.std_C[moves].clamp(min=1e-12)
    uncertain = _SURE * torch.hypot(given.error_C[moves] / own, usual.error_C[moves] / unit)
    stretched = torch.log(own / unit).abs() > math.log(stretch) + torch.log1p(uncertain)
    return bool((shifted | stretched).double().mean() >= 0.5)


def neighbours_agree(x: Tensor) -> float | None:
    """The correlation of numbers that stand side by side along the last axis, the mean over the samples' channels.

    Returns:
        ``None`` where the samples have no axis of 8 numbers along which they vary.
    """
    if x.dim() < 2 or x.shape[-1] < (64 if x.dim() == 2 else 8):
        return None
    rows = x.double().flatten(0, -2)
    rows = rows - rows.mean(1, keepdim=True)
    power = rows.square().sum(1)
    some = power > 1e-12 * power.max()
    if not bool(some.any()):
        return None
    return float(((rows[:, 1:] * rows[:, :-1]).sum(1)[some] / power[some]).mean())


def looks_drawn(x: Tensor) -> bool:
    """Whether samples [N, C, ...] of three or more dimensions are spread like ``torch.randn`` or ``torch.rand``."""
    if x.dim() < 3:
        return False
    x = x.double().flatten()
    mean, std = float(x.mean()), float(x.std(correction=0))
    if not std:
        return False
    kurtosis = float((x - mean).pow(4).mean()) / std**4
    normal = abs(mean) < 0.1 and abs(std - 1) < 0.1 and abs(kurtosis - 3) < 0.3
    uniform = float(x.min()) >= 0 and float(x.max()) <= 1 and abs(mean - 0.5) < 0.05
    return normal or (uniform and abs(kurtosis - 1.8) < 0.1)


def known_tokens(x: Tensor, usual: Tensor) -> float:
    """The share of the numbers in ``x`` that occur in ``usual``, over the share that half of ``usual`` has of the rest.

    The commonest number, which fills up short rows, is left out. 1 where there is too little to tell.
    """
    if usual.is_floating_point() or len(usual) < 2:
        return 1.0
    filling = int(usual.flatten().mode().values)
    half = len(usual) // 2
    expected = _share(usual[half:], usual[:half], filling)
    found = _share(x, usual, filling)
    if expected is None or found is None or expected == 0:
        return 1.0
    return found / expected


def _share(x: Tensor, known: Tensor, without: int) -> float | None:
    x = x[x != without]
    return float(torch.isin(x, known).double().mean()) if x.numel() else None
