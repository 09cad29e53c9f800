"""Frozen facts that travel between the layers: what a technique changed, what quantization decided.

The facts of a receipt are in ``receipt.py``; these are the ones that hold tensors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

Severity = Literal["note", "warning"]


@dataclass(frozen=True)
class Change:
    """One thing that a technique changed in one layer, in the units named by ``what``."""

    layer: str
    what: str
    was: float | int | str
    now: float | int | str


@dataclass(frozen=True)
class Note:
    """Something that did not bring what its user may expect: which layer, and why."""

    code: str
    severity: Severity
    layer: str | None
    text: str


@dataclass(frozen=True)
class QuantizedWeight:
    """One weight tensor in fewer bits, packed, with what is needed to read it back.

    ``packed`` is a flat uint8 tensor of ``ceil(numel * bits / 8)`` bytes: the low ``bits`` bits of each
    integer (two's complement) in row-major order, least significant bits first.
    ``scale`` (float32) and ``zero_point`` (int32) have one element, or one per index of ``axis``.
    With a ``group_size`` each index of ``axis`` is a row of all its K weights in row-major order, cut into
    ceil(K / group_size) groups of which the last may be short; there is then one element per group, those of
    one row side by side. An integer q stands for ``(q - zero_point) * scale``. Symmetric integers lie in
    [-(2**(bits-1) - 1), 2**(bits-1) - 1] with zero point 0, affine ones in [0, 2**bits - 1].

    ``float16`` and ``bfloat16`` are the trivial case: ``packed`` holds the halves, ``bits`` is 16, there is no axis,
    the only scale is 1 and the only zero point 0.

    ``input_scale`` (float32, one per index of dimension 1) is by what the layer's input is divided before it
    meets the integers: the weight is then ``(q - zero_point) * scale / input_scale``.
    """

    packed: Tensor
    shape: tuple[int, ...]
    bits: int
    scheme: Literal["symmetric", "affine", "float16", "bfloat16"]
    axis: int | None
    scale: Tensor
    zero_point: Tensor
    group_size: int | None = None
    input_scale: Tensor | None = None

    @property
    def is_half(self) -> bool:
        """Whether ``packed`` holds halves rather than integers."""
        return self.scheme in ("float16", "bfloat16")

    @property
    def rows(self) -> tuple[int, int]:
        """Rows that have scales of their own, and weights in each."""
        count = math.prod(self.shape)
        if self.axis is None:
            return 1, count
        channels = self.shape[self.axis]
        return channels, count // channels if channels else 0

    @property
    def scales(self) -> int:
        """How many scales there must be."""
        channels, width = self.rows
        return channels if self.group_size is None else channels * -(-width // self.group_size)


@dataclass(frozen=True)
class QuantizedValue:
    """Scale and zero point of one activation: q = clamp(round(x / scale) + zero_point, 0, 2**bits - 1)."""

    scale: float
    zero_point: int
    bits: int = 8


@dataclass(frozen=True)
class QuantPlan:
    """Every decision of a quantization: weights by parameter name, activations by value of the float graph.

    ``values`` is empty where only weights are quantized. ``dynamic`` names the weights of layers that round their
    input at run time, to the range that it has.
    """

    weights: Mapping[str, QuantizedWeight] = field(default_factory=dict)
    values: Mapping[str, QuantizedValue] = field(default_factory=dict)
    dynamic: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Compressed:
    """What a technique returns: a new network, the facts of what changed, and what later steps must respect.

    ``pruned`` names the parameters whose zeros must stay zero in later steps.
    ``plan`` is set once the network is quantized; the network then holds the dequantized weights.
    """

    model: nn.Module
    changes: tuple[Change, ...] = ()
    notes: tuple[Note, ...] = ()
    pruned: frozenset[str] = frozenset()
    plan: QuantPlan | None = None
