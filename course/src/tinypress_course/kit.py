"""What a learner's functions are written with: the facts they return, packed bits, recipes and the press.

Where the toolkit is not there (a grader's sandbox), plain stand-ins with the same fields take its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

try:
    import tinypress as _toolkit
except ModuleNotFoundError:
    from tinypress_course import stand_in as _toolkit  # type: ignore[no-redef]

Change = _toolkit.Change
Compressed = _toolkit.Compressed
ModelSize = _toolkit.ModelSize
ParameterCount = _toolkit.ParameterCount
QuantizedWeight = _toolkit.QuantizedWeight
Recipe = _toolkit.Recipe
Schedule = _toolkit.Schedule
Split = _toolkit.Split

__all__ = [
    "Change",
    "Compressed",
    "ModelSize",
    "ParameterCount",
    "QuantizedWeight",
    "Recipe",
    "Schedule",
    "Split",
    "WeightSummary",
    "pack",
    "press",
    "pressing_with",
    "unpack",
]


@dataclass(frozen=True)
class WeightSummary:
    """How the weights of one layer, or of a whole network, are spread; ``std`` is of the population.

    ``near_zero`` is the share of weights with a magnitude of at most the threshold, ``sparsity`` that of
    exact zeros; both are fractions 0..1.
    """

    count: int
    mean: float
    std: float
    low: float
    high: float
    near_zero: float
    sparsity: float


def pack(integers: Tensor, bits: int) -> Tensor:
    """Lay whole numbers of ``bits`` bits end to end in a row of bytes, the least significant bit first.

    Args:
        integers: any shape and integer dtype; negative ones are kept in two's complement.
        bits: 2 to 8.

    Returns:
        uint8 [ceil(numel * bits / 8)].

    Raises:
        ValueError: no whole number of bits from 2 to 8, or numbers that are not whole.
    """
    if isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 8:
        raise ValueError(f"pack(bits={bits}): give a whole number from 2 to 8")
    if integers.is_floating_point():
        raise ValueError(f"pack: the numbers are {integers.dtype}; give whole numbers, such as .long()")
    flat = integers.detach().reshape(-1).to(torch.int64)
    ones = (flat[:, None] >> torch.arange(bits)) & 1
    row = ones.reshape(-1)
    row = torch.cat([row, row.new_zeros(-len(row) % 8)]).view(-1, 8)
    return (row << torch.arange(8)).sum(1).to(torch.uint8)


def unpack(packed: Tensor, bits: int, count: int, *, signed: bool) -> Tensor:
    """The ``count`` whole numbers that ``pack`` laid into ``packed``: int64 [count]."""
    ones = (packed.to(torch.int64)[:, None] >> torch.arange(8)) & 1
    flat = (ones.reshape(-1)[: count * bits].view(count, bits) << torch.arange(bits)).sum(1)
    return torch.where(flat >= 1 << (bits - 1), flat - (1 << bits), flat) if signed else flat


_pressing: list[Callable[..., Any]] = [_toolkit.press]


def press(task: Any, recipes: Any, out: Any, **settings: Any) -> Any:
    """``tinypress.press``: carry out ``recipes`` on ``task``, measure what ships, return the receipt."""
    return _pressing[-1](task, recipes, out, **settings)


@contextmanager
def pressing_with(instead: Callable[..., Any]) -> Iterator[None]:
    """Have ``press`` call ``instead``, so that a check can see what it was asked for."""
    _pressing.append(instead)
    try:
        yield
    finally:
        _pressing.pop()
