"""The module's pictures. Each takes tensors or measured numbers and returns a figure; nothing is drawn from memory.

A notebook shows the figure that a cell ends with. Run as a script, each is written into the folder ``pictures``.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ParamSpec

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

INK, ACCENT, QUIET = "#1f3a5f", "#d1495b", "#9aa5b1"
FOLDER = Path("pictures")
_numbers = itertools.count(1)
P = ParamSpec("P")


def _kept(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """``draw``, whose figure is also written to a file where no notebook shows it."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        figure = draw(*args, **kwargs)
        plt.close(figure)  # or a notebook would show it twice
        if "ipykernel" not in sys.modules:
            FOLDER.mkdir(exist_ok=True)
            path = FOLDER / f"{next(_numbers):02}-{draw.__name__}.png"
            figure.savefig(path, dpi=110)
            print(f"picture: {path}")
        return figure

    return drawn


@_kept
def bars(heights: Mapping[str, float], unit: str, limit: tuple[str, float] | None = None) -> Figure:
    """One bar for each name; ``limit`` draws a line across, such as the memory that there is."""
    figure, axes = _one(3.2)
    axes.bar(list(heights), list(heights.values()), color=INK)
    axes.set_ylabel(unit)
    if limit is not None:
        axes.axhline(limit[1], color=ACCENT, linestyle="--")
        axes.annotate(limit[0], (0.99, limit[1]), xycoords=("axes fraction", "data"), ha="right", va="bottom")
    return figure


@_kept
def masks(weight: Tensor, sparsity: float = 0.5) -> Figure:
    """Which weights of a matrix [out, in] stay (dark) in three patterns of about the same sparsity.

    Single weights by magnitude; 2:4, the two largest of every four neighbours; blocks of 4 x 4 by their norm.
    """
    corner = weight.detach().flatten(1)[:32, :64].abs()
    patterns = {
        "single weights": corner > corner.flatten().kthvalue(int(corner.numel() * sparsity)).values,
        "2 of every 4": two_of_four(corner),
        "blocks of 4 x 4": four_by_four(corner, sparsity),
    }
    figure, row = _several(3, 2.4)
    for axes, (name, kept) in zip(row, patterns.items(), strict=True):
        axes.imshow(kept, cmap="Greys", interpolation="nearest", vmin=0, vmax=1.2)
        axes.set_title(f"{name}: {1 - kept.double().mean():.0%} zero", fontsize=10)
        axes.set_xticks([])
        axes.set_yticks([])
    return figure


def two_of_four(magnitudes: Tensor) -> Tensor:
    """True for the two largest of every four neighbours in a row; [out, in] with ``in`` a multiple of 4."""
    groups = magnitudes.reshape(-1, 4)
    kept = torch.zeros_like(groups, dtype=torch.bool).scatter_(1, groups.topk(2, dim=1).indices, True)
    return kept.view_as(magnitudes)


def four_by_four(magnitudes: Tensor, sparsity: float) -> Tensor:
    """True for the blocks of 4 x 4 with the largest sums of squares; both sizes multiples of 4."""
    rows, columns = (size // 4 for size in magnitudes.shape)
    blocks = magnitudes.square().view(rows, 4, columns, 4).sum((1, 3))
    kept = blocks > blocks.flatten().kthvalue(max(1, int(blocks.numel() * sparsity))).values
    return kept.repeat_interleave(4, 0).repeat_interleave(4, 1)


@_kept
def curve(
    lines: Mapping[str, Mapping[float, float]], across: str, up: str, level: tuple[str, float] | None = None
) -> Figure:
    """Measured points joined by lines; ``level`` is what they are compared with."""
    figure, axes = _one(3.4)
    for (name, points), colour in zip(lines.items(), (INK, ACCENT, "#66a182", QUIET), strict=False):
        axes.plot(list(points), list(points.values()), "o-", color=colour, label=name)
    if level is not None:
        axes.axhline(level[1], color=QUIET, linestyle="--", label=level[0])
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.legend(frameon=False)
    return figure


@_kept
def steps_of(weight: Tensor, restored: Mapping[str, Tensor]) -> Figure:
    """A histogram of weights and, for each way of quantizing, of the values that came back."""
    figure, row = _several(1 + len(restored), 2.4, sharex=True)
    for axes, (name, values) in zip(row, {"float": weight, **restored}.items(), strict=True):
        axes.hist(values.detach().flatten().tolist(), bins=121, color=INK)
        axes.set_title(name, fontsize=10)
        axes.set_yticks([])
    return figure


@_kept
def softened(logits: Tensor, temperatures: Sequence[float], classes: Sequence[str]) -> Figure:
    """What a teacher thinks of one sample [classes], at several temperatures."""
    figure, row = _several(len(temperatures), 2.6, sharey=True)
    for axes, temperature in zip(row, temperatures, strict=True):
        axes.barh(list(classes), torch.softmax(logits / temperature, dim=0).tolist(), color=INK)
        axes.set_title(f"T = {temperature:g}", fontsize=10)
        axes.set_xlim(0, 1)
    return figure


@_kept
def cascade(producer: Tensor, consumer: Tensor, gone: Sequence[int]) -> Figure:
    """Two weight matrices in a row: the neurons ``gone`` are rows of the first and columns of the second."""
    figure, (left, right) = _several(2, 2.6)
    first, second = producer.detach().flatten(1).abs()[:16], consumer.detach().abs()
    second = second.flatten(2).sum(2) if second.dim() > 2 else second
    left.imshow(first, cmap="Blues", aspect="auto")
    right.imshow(second[:16, :16], cmap="Blues", aspect="auto")
    for neuron in gone:
        left.axhspan(neuron - 0.5, neuron + 0.5, color=ACCENT, alpha=0.6)
        right.axvspan(neuron - 0.5, neuron + 0.5, color=ACCENT, alpha=0.6)
    left.set(title="a neuron is a row here", xlabel="inputs", ylabel="neurons")
    right.set(title="and a column of the next layer", xlabel="neurons", ylabel="outputs")
    return figure


@_kept
def trade_off(points: Mapping[str, tuple[float, float]], across: str, up: str) -> Figure:
    """Every candidate as one named point (cost, quality)."""
    figure, axes = _one(3.6)
    for name, (cost, quality) in points.items():
        axes.plot(cost, quality, "o", color=INK)
        axes.annotate(name, (cost, quality), fontsize=8, xytext=(4, 3), textcoords="offset points")
    axes.set_xscale("log")
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    return figure


def _several(count: int, height: float, **shared: bool) -> tuple[Figure, Sequence[Axes]]:
    figure, row = plt.subplots(1, count, figsize=(9, height), layout="constrained", squeeze=False, **shared)
    return figure, list(row[0])


def _one(height: float) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=(7, height), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
