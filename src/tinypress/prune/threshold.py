"""Find the magnitude below which a given number of weights lie, exactly, without sorting them.

A random sample brackets the wanted magnitude; one pass over the weights counts those below the bracket and
collects those inside, and the answer is found among the few collected. The counts prove that the bracket
holds it. Where they do not, or where too many equal weights lie inside, the bracket is moved or halved and
the pass repeated: the sample decides how fast the answer comes, never what it is. Floyd and Rivest,
"Expected time bounds for selection" (1975) choose their bracket in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tinypress.errors import ModelError
from tinypress.prune.blocks import Bits, Flags, each_block, infinity_bits, magnitude_bits

_SAMPLE = 1 << 18
_SMALL = 1 << 20  # up to here everything is collected
_DEVIATIONS = 6.0  # half the width of the bracket, in standard deviations of the sample's rank


@dataclass(frozen=True)
class Threshold:
    """Prune every weight whose magnitude bits lie below ``bits``, and the first ``ties`` of the ``equal``
    weights whose magnitude bits are ``bits``."""

    bits: int
    ties: int
    equal: int


@dataclass(frozen=True)
class _Tally:
    below: int
    inside: int
    collected: tuple[Bits, ...]


def find_threshold(call: str, weights: Mapping[str, Tensor], count: int) -> Threshold | None:
    """The threshold that prunes exactly ``count`` of the weights.

    Args:
        call: the call that an error repeats.
        weights: flat contiguous CPU tensors of one floating-point dtype, in the order that breaks ties.
        count: how many to prune, from 0 to all of them.

    Returns:
        The threshold, or ``None`` where ``count`` is 0.

    Raises:
        ModelError: a weight is NaN or infinite.
    """
    if count == 0:
        require_finite(call, weights)
        return None
    total = sum(flat.numel() for flat in weights.values())
    dtype = next(iter(weights.values())).dtype
    least, most = 0, infinity_bits(dtype) - 1
    room = max(2 * _SMALL, total // 16)
    low, high = (least, most) if total <= _SMALL else _bracket(weights, count, total, most)
    while True:
        tally = _scan(call, weights, low, high, room)
        if count <= tally.below:
            most = low - 1
            low, high = least, most
        elif count > tally.below + tally.inside:
            least = high + 1
            low, high = least, most
        elif low == high:
            return Threshold(low, count - tally.below, tally.inside)
        elif tally.inside <= room:
            return _among(np.concatenate(tally.collected), count - tally.below)
        else:
            least, most = low, high
            high = (low + high) // 2


def require_finite(call: str, weights: Mapping[str, Tensor]) -> None:
    """Raise ModelError where one of the flat ``weights`` holds NaN or infinity."""
    _scan(call, weights, 0, 0, 0)


def _among(collected: Bits, rank: int) -> Threshold:
    """The threshold at the ``rank``-th smallest, counted from 1, of the collected magnitude bits."""
    bits = int(np.partition(collected, rank - 1)[rank - 1])
    smaller = int(np.count_nonzero(collected < bits))
    return Threshold(bits, rank - smaller, int(np.count_nonzero(collected == bits)))


def _scan(call: str, weights: Mapping[str, Tensor], low: int, high: int, room: int) -> _Tally:
    """Count magnitudes below ``low`` and from ``low`` to ``high``; collect the latter if ``room`` do."""
    infinity = infinity_bits(next(iter(weights.values())).dtype)
    seen = 0

    def tally(name: str, bits: Bits, flags: tuple[Flags, Flags]) -> _Tally:
        nonlocal seen
        if bits.max() >= infinity:
            raise ModelError(
                call,
                f"the parameter {name!r} holds NaN or infinity",
                "Look for the step of the training that diverged",
            )
        is_below, is_inside = np.less(bits, low, out=flags[0]), np.less_equal(bits, high, out=flags[1])
        below = int(np.count_nonzero(is_below))
        inside = int(np.count_nonzero(is_inside)) - below
        # Two threads may lose each other's addition. Then more is collected than need be, never less.
        seen += inside
        if not inside or seen > room:
            return _Tally(below, inside, ())
        return _Tally(below, inside, (bits[np.greater(is_inside, is_below, out=is_inside)],))

    tallies = each_block(weights, tally)
    return _Tally(
        sum(tally.below for tally in tallies),
        sum(tally.inside for tally in tallies),
        tuple(bits for tally in tallies for bits in tally.collected),
    )


def _bracket(weights: Mapping[str, Tensor], count: int, total: int, most: int) -> tuple[int, int]:
    """Magnitude bits that hold the ``count``-th smallest of ``total`` in all likelihood."""
    positions = np.sort(np.random.default_rng(0).integers(0, total, _SAMPLE))
    found: list[Bits] = []
    start = 0
    for flat in weights.values():
        end = start + flat.numel()
        first, last = np.searchsorted(positions, [start, end])
        taken = flat[torch.from_numpy(positions[first:last] - start)]
        found.append(magnitude_bits(taken))
        start = end
    sample = np.sort(np.concatenate(found))
    fraction = count / total
    rank = fraction * _SAMPLE
    margin = _DEVIATIONS * (_SAMPLE * fraction * (1 - fraction)) ** 0.5 + 2
    first_rank, last_rank = int(rank - margin), int(rank + margin)
    low = 0 if first_rank < 0 else int(sample[first_rank])
    high = most if last_rank >= _SAMPLE else int(sample[last_rank])
    # NaN in the sample would lie above everything that is allowed; the scan names its parameter
    return min(low, most), min(high, most)
