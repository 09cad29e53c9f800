"""Walk over the magnitudes of many weights, a block that fits the cache at a time, on several threads.

The bits of a floating-point number without its sign, read as an integer, have the order of its magnitude.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Bits = NDArray[np.signedinteger]
Flags = NDArray[np.bool_]
Result = TypeVar("Result")

BLOCK = 1 << 19

_INTEGER: dict[torch.dtype, tuple[torch.dtype, type[np.signedinteger]]] = {
    torch.float16: (torch.int16, np.int16),
    torch.bfloat16: (torch.int16, np.int16),
    torch.float32: (torch.int32, np.int32),
    torch.float64: (torch.int64, np.int64),
}


def is_known(dtype: torch.dtype) -> bool:
    """Whether weights of ``dtype`` can be pruned."""
    return dtype in _INTEGER


def integer_dtype(dtype: torch.dtype) -> torch.dtype:
    """The integers as wide as the floating-point ``dtype``."""
    return _INTEGER[dtype][0]


def infinity_bits(dtype: torch.dtype) -> int:
    """The magnitude bits of infinity; those of NaN lie above, those of all other numbers below."""
    return int(torch.tensor(float("inf"), dtype=dtype).view(integer_dtype(dtype)))


def from_bits(bits: int, dtype: torch.dtype) -> float:
    """The magnitude whose bits these are."""
    return torch.tensor(bits, dtype=integer_dtype(dtype)).view(dtype).item()


def magnitude_bits(flat: Tensor, out: Bits | None = None) -> Bits:
    """The bits of a flat CPU tensor without the signs."""
    integers: Bits = flat.view(integer_dtype(flat.dtype)).numpy()
    return np.bitwise_and(integers, np.iinfo(integers.dtype).max, out=out)


def blocks_of(flat: Tensor) -> Sequence[Tensor]:
    """The blocks of one tensor, in order; none of an empty one."""
    return torch.split(flat, BLOCK) if len(flat) else ()


def each_block(
    weights: Mapping[str, Tensor], visit: Callable[[str, Bits, tuple[Flags, Flags]], Result]
) -> list[Result]:
    """What ``visit`` returns for each block of ``weights``, in their order.

    ``visit(name, bits, flags)`` gets magnitude bits and two arrays of their length to write to. All three
    are used again for the next block. It runs on as many threads as PyTorch uses; NumPy does the work,
    because it compares and counts several times faster than PyTorch's operations.

    Args:
        weights: flat contiguous CPU tensors of one floating-point dtype.
    """
    blocks = [(name, block) for name, flat in weights.items() for block in blocks_of(flat)]
    if not blocks:
        return []
    longest = max(len(block) for _, block in blocks)
    threads = min(torch.get_num_threads(), len(blocks))

    def share(first: int) -> list[Result]:
        buffer = np.empty(longest, _INTEGER[blocks[0][1].dtype][1])
        flags, more_flags = np.empty(longest, np.bool_), np.empty(longest, np.bool_)
        results = []
        for name, block in blocks[first::threads]:
            size = len(block)
            bits = magnitude_bits(block, out=buffer[:size])
            results.append(visit(name, bits, (flags[:size], more_flags[:size])))
        return results

    if threads == 1:
        return share(0)
    with ThreadPoolExecutor(threads) as pool:
        shares = list(pool.map(share, range(threads)))
    return [shares[number % threads][number // threads] for number in range(len(blocks))]
