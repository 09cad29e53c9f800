"""Write the weights again without those that lie below a threshold."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from tinypress.buffers import empty
from tinypress.prune.blocks import Bits, Flags, blocks_of, each_block, from_bits, magnitude_bits
from tinypress.prune.threshold import Threshold, find_threshold


def zero_smallest(call: str, weights: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """New tensors with the ``count`` smallest magnitudes of all of ``weights`` together set to zero.

    Among equal magnitudes the one that is earlier in (order of ``weights``, index) is zeroed first.

    Args:
        call: the call that an error repeats.
        weights: flat contiguous CPU tensors of one floating-point dtype; they are only read.

    Raises:
        ModelError: a weight is NaN or infinite.
    """
    threshold = find_threshold(call, weights, count)
    if threshold is None:
        return {name: empty(flat.numel(), flat.dtype).copy_(flat) for name, flat in weights.items()}
    dtype = next(iter(weights.values())).dtype
    magnitude = from_bits(threshold.bits, dtype)
    kept: dict[str, Tensor] = {}
    for name, flat in weights.items():
        out = empty(flat.numel(), dtype)
        # zero wherever -magnitude <= w <= magnitude, in one pass over the memory
        kept[name] = torch.ops.aten.hardshrink.out(flat, magnitude, out=out)
    if threshold.ties < threshold.equal:
        _restore_later_ties(weights, kept, threshold)
    return kept


def _restore_later_ties(weights: Mapping[str, Tensor], kept: Mapping[str, Tensor], at: Threshold) -> None:
    """Put back the weights that equal the threshold, but for the first ``at.ties`` of them."""

    def count_equal(name: str, bits: Bits, flags: tuple[Flags, Flags]) -> int:
        return int(np.count_nonzero(np.equal(bits, at.bits, out=flags[0])))

    counts = iter(each_block(weights, count_equal))
    left = at.ties
    for name, flat in weights.items():
        for block, out in zip(blocks_of(flat), blocks_of(kept[name]), strict=True):
            count = next(counts)
            if count > left:
                positions = torch.from_numpy(np.flatnonzero(magnitude_bits(block) == at.bits)[left:])
                out[positions] = block[positions]
            left -= min(count, left)
