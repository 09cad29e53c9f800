"""The plan's groups as the blocks that ONNX Runtime's packed operators take: powers of two from 16 to 256.

Axes: C rows, G blocks of one row, b weights of one block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tinypress.bits import pack, unpack
from tinypress.facts import QuantizedWeight

_SIZES = (16, 32, 64, 128, 256)
_CONTAINERS = (2, 4, 8)  # bits


@dataclass(frozen=True)
class Blocks:
    """Unsigned integers [C, G, b], the last block of a row filled up with the zero point, in containers of
    ``bits``; scales [C, G] float32; zero points [C, G], or ``None`` for the middle of the range."""

    integers: NDArray[np.uint8]
    scale: NDArray[np.float32]
    zero_point: NDArray[np.uint8] | None
    bits: int

    @property
    def size(self) -> int:
        return int(self.integers.shape[2])


def blocks_of(weight: QuantizedWeight) -> Blocks | None:
    """The weight in blocks; ``None`` where its groups are no whole number of blocks, or it is no matrix."""
    if weight.is_half or len(weight.shape) != 2 or weight.axis not in (None, 0) or 0 in weight.shape:
        return None
    rows, width = weight.shape
    group = width if weight.axis is None or weight.group_size is None else min(weight.group_size, width)
    bits = next(container for container in _CONTAINERS if weight.bits <= container)
    size = _block_size(width, group, bits)
    if size is None:
        return None
    signed = weight.scheme == "symmetric"
    middle = 1 << (bits - 1) if signed else 0
    q = unpack(weight.packed, weight.bits, rows * width, signed=signed).numpy().astype(np.int16) + middle
    count = -(-width // size)
    owner = np.arange(count) * size // group  # the group of each block
    scale = _per_row(weight.scale.numpy(), rows)[:, owner]
    zero = _per_row(weight.zero_point.numpy(), rows)[:, owner] + middle
    filled = np.repeat(zero.astype(np.uint8), size, axis=1)
    filled[:, :width] = q.reshape(rows, width).astype(np.uint8)
    stored_zero = None if signed else zero.astype(np.uint8)
    return Blocks(filled.reshape(rows, count, size), scale.astype(np.float32), stored_zero, bits)


def _block_size(width: int, group: int, bits: int) -> int | None:
    if group >= width:  # one scale a row: as few bytes as can be, scales and filling together
        return min(_SIZES, key=lambda size: (-(-width // size) * (size * bits // 8 + 4), -size))
    return max((size for size in _SIZES if group % size == 0), default=None)


def _per_row(values: NDArray[np.generic], rows: int) -> NDArray[np.generic]:
    per_row = (
        values.reshape(rows, -1) if values.size >= rows and values.size % rows == 0 else values.reshape(1, -1)
    )
    return np.broadcast_to(per_row, (rows, per_row.shape[1]))


def packed_blocks(integers: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Containers of 2, 4 or 8 bits along the last axis, first integer in the lowest bits: [..., ceil(b bits / 8)]."""
    if integers.shape[-1] * bits % 8:
        missing = [(0, 0)] * (integers.ndim - 1) + [(0, -integers.shape[-1] % (8 // bits))]
        integers = np.pad(integers, missing)
    packed = pack(torch.from_numpy(np.ascontiguousarray(integers)), bits).numpy()
    return packed.reshape(*integers.shape[:-1], -1)


def nibbles(integers: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Integers of any shape in 4 bits each, end to end."""
    packed: NDArray[np.uint8] = pack(torch.from_numpy(np.ascontiguousarray(integers)), 4).numpy()
    return packed
