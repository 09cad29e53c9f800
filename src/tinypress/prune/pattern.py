"""Zeros in a pattern that hardware can use: N of every M weights stay, or whole blocks go.

Axes: O outputs, I inputs (what a weight is summed over), K places of a kernel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from tinypress.errors import InputError, ModelError
from tinypress.facts import Note
from tinypress.prune.sparsity import count_to_prune
from tinypress.prune.threshold import require_finite
from tinypress.prune.weights import layer_of


@dataclass(frozen=True)
class KeepNOfM:
    """``N:M``: of every M neighbours along the inputs at most N stay (Mishra et al. 2021, arXiv:2104.08378)."""

    n: int
    m: int

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"


@dataclass(frozen=True)
class Blocks:
    """``RxC``: weights go in whole blocks of R outputs and C inputs of the matrix [O, I·K]."""

    rows: int
    columns: int

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}"


def parse_pattern(text: str) -> KeepNOfM | Blocks:
    """The pattern written ``N:M``, such as ``2:4``, or ``RxC``, such as ``4x1``.

    Raises:
        InputError: it is neither, or N is not from 1 to below M.
    """
    call = f"pattern={text!r}"
    found = re.fullmatch(r"([1-9]\d{0,3})([:x])([1-9]\d{0,3})", text) if isinstance(text, str) else None
    remedy = "Give N:M such as '2:4', or a block of outputs x inputs such as '4x1'"
    if found is None:
        raise InputError(call, "there is no such pattern", remedy)
    first, second = int(found[1]), int(found[3])
    if found[2] == "x":
        if first * second == 1:
            raise InputError(call, "a block of one weight is no pattern", "Leave the pattern out")
        return Blocks(first, second)
    if first >= second:
        raise InputError(call, f"{first} of {second} would prune nothing", remedy)
    return KeepNOfM(first, second)


def pattern_sparsity(pattern: KeepNOfM) -> float:
    """The sparsity that an N:M pattern brings: 1 - N/M."""
    return 1 - pattern.n / pattern.m


def check_sparsity(call: str, sparsity: float, pattern: KeepNOfM | Blocks) -> None:
    """Raise InputError for a ``sparsity`` that is not the one of an N:M pattern."""
    if isinstance(pattern, KeepNOfM) and abs(sparsity - pattern_sparsity(pattern)) > 1e-6:
        raise InputError(
            call,
            f"{pattern} brings a sparsity of {pattern_sparsity(pattern):g}, not {sparsity:g}",
            f"Give sparsity={pattern_sparsity(pattern):g}",
        )


def prune_to_pattern(
    call: str,
    model: nn.Module,
    scores: Mapping[str, Tensor],
    sparsity: float,
    pattern: KeepNOfM | Blocks,
    together: bool,
) -> tuple[dict[str, Tensor], tuple[Note, ...]]:
    """Which weights go, as booleans of the parameters' shapes, by parameter name.

    Of each group of M the M - N smallest scores go; of blocks round(sparsity * number of blocks) with the smallest
    sum of scores. The earlier goes first among equals.

    Args:
        scores: what every weight is worth, from 0, of the parameter's shape; the magnitude for one.
        together: rank the blocks of all parameters together.

    Returns:
        The weights that go, and a note (TP112) for each parameter whose shape the pattern does not divide: it is
        left alone.

    Raises:
        InputError: ``sparsity`` is not that of the N:M pattern.
        ModelError: a score is NaN or infinite, or the pattern fits no parameter.
    """
    count_to_prune(call, sparsity, 0)
    check_sparsity(call, sparsity, pattern)
    groups: dict[str, _View] = {}
    notes = []
    for name, score in scores.items():
        require_finite(call, {name: score.detach().cpu().reshape(-1)})
        view = _view(model, name, score, pattern)
        if view is None:
            shape = "×".join(str(size) for size in score.shape)
            text = f"{name} [{shape}] was not pruned: its inputs are no whole number of {pattern} groups"
            notes.append(Note("TP112", "warning", layer_of(name), text))
        else:
            groups[name] = view
    if not groups:
        raise ModelError(call, f"no layer has a shape that {pattern} divides", "Choose another pattern")
    if isinstance(pattern, KeepNOfM):
        gone = {name: _smallest_of_each(view, pattern.m - pattern.n) for name, view in groups.items()}
    else:
        gone = _smallest_blocks(call, groups, sparsity, together)
    return {name: groups[name].back(gone[name]) for name in groups}, tuple(notes)


@dataclass(frozen=True)
class _View:
    """Scores [groups, weights of a group] in row-major order of the groups, and the way back."""

    scores: Tensor
    permuted: tuple[int, ...]
    order: tuple[int, ...]

    def back(self, gone: Tensor) -> Tensor:
        inverse = [self.order.index(axis) for axis in range(len(self.order))]
        return gone.reshape(self.permuted).permute(inverse).contiguous()


def _view(model: nn.Module, name: str, score: Tensor, pattern: KeepNOfM | Blocks) -> _View | None:
    path, _, leaf = name.rpartition(".")
    layer = model.get_submodule(path)
    transposed = isinstance(layer, _ConvTransposeNd) and leaf == "weight"
    inputs = 0 if transposed else 1
    cpu = score.detach().cpu()
    if isinstance(pattern, KeepNOfM):
        if cpu.shape[inputs] % pattern.m or not cpu.numel():
            return None
        order = (*(axis for axis in range(cpu.dim()) if axis != inputs), inputs)
        moved = cpu.permute(order)
        return _View(moved.reshape(-1, pattern.m), tuple(moved.shape), order)
    outputs = 1 - inputs
    order = (outputs, inputs, *range(2, cpu.dim()))
    moved = cpu.permute(order)
    matrix = moved.reshape(moved.shape[0], -1)
    rows, columns = pattern.rows, pattern.columns
    if matrix.shape[0] % rows or matrix.shape[1] % columns or not matrix.numel():
        return None
    split = matrix.view(matrix.shape[0] // rows, rows, matrix.shape[1] // columns, columns)
    blocks = split.permute(0, 2, 1, 3)
    return _BlockView(blocks.reshape(-1, rows * columns), tuple(moved.shape), order, tuple(blocks.shape))


@dataclass(frozen=True)
class _BlockView(_View):
    blocks: tuple[int, ...] = ()

    def back(self, gone: Tensor) -> Tensor:
        return super().back(gone.reshape(self.blocks).permute(0, 2, 1, 3))


def _smallest_of_each(view: _View, count: int) -> Tensor:
    order = view.scores.sort(dim=1, stable=True).indices[:, :count]
    return torch.zeros_like(view.scores, dtype=torch.bool).scatter_(1, order, True)


def _smallest_blocks(
    call: str, groups: Mapping[str, _View], sparsity: float, together: bool
) -> dict[str, Tensor]:
    sums = {name: view.scores.double().sum(1) for name, view in groups.items()}
    parts = [list(sums)] if together else [[name] for name in sums]
    gone: dict[str, Tensor] = {}
    for names in parts:
        row = torch.cat([sums[name] for name in names])
        chosen = torch.zeros_like(row, dtype=torch.bool)
        chosen[row.sort(stable=True).indices[: count_to_prune(call, sparsity, len(row))]] = True
        for name, part in zip(names, torch.split(chosen, [len(sums[name]) for name in names]), strict=True):
            gone[name] = part[:, None].expand(groups[name].scores.shape)
    return gone
