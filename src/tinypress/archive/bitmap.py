"""Where the nonzero weights are: one bit a weight, first weight in the lowest bit of the first byte.

A tensor of n weights has a bitmap of ``ceil(n / 8)`` bytes; the bits beyond n are zero.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def bitmap_bytes(count: int) -> int:
    """Length of the bitmap of ``count`` weights."""
    return -(-count // 8)


def pack_mask(mask: NDArray[np.bool_]) -> bytes:
    """The bitmap of a flat mask."""
    return np.packbits(mask, bitorder="little").tobytes()


def unpack_mask(bitmap: bytes | memoryview, count: int) -> NDArray[np.bool_]:
    """The flat mask of ``count`` weights.

    Raises:
        ValueError: the bitmap has another length, or a bit beyond the last weight is set.
    """
    packed = np.frombuffer(bitmap, dtype=np.uint8)
    if packed.size != bitmap_bytes(count):
        raise ValueError(f"bitmap of {packed.size} bytes for {count} weights")
    bits = np.unpackbits(packed, bitorder="little")
    if bits[count:].any():
        raise ValueError("bitmap has a padding bit set")
    return bits[:count].view(np.bool_)
