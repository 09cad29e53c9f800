"""How often each size of a value was seen: a histogram in bounded memory that widens as larger values come.

Bins are [i * width, (i + 1) * width) with a width that is a power of two, the smallest under which all values seen so
far fit into ``BINS`` of them. A wider width merges neighbours two by two and moves no count across a border, so a
stream of batches gives exactly the histogram of all values at once, however they are cut into batches. Zeros are
counted apart: every quantization represents them exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 2048
_SMALLEST_WIDTH = 2.0**-120  # its reciprocal is a float32 still

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Histogram:
    """Counts [BINS at most] of the bins that begin at ``first * width``; ``low`` and ``high`` are the exact ends."""

    low: float
    high: float
    zeros: int
    width: float
    first: int
    counts: NDArray[np.int64]

    @property
    def edges(self) -> NDArray[np.float64]:
        """Where the bins begin, and where the last one ends: one more than there are counts."""
        return np.arange(self.first, self.first + len(self.counts) + 1, dtype=np.float64) * self.width

    @property
    def total(self) -> int:
        """How many values were seen, the zeros included."""
        return self.zeros + int(self.counts.sum())


NOTHING = Histogram(0.0, 0.0, 0, _SMALLEST_WIDTH, 0, np.zeros(0, np.int64))


def widened(before: Histogram, values: Array, low: float, high: float) -> Histogram:
    """``before`` with ``values`` (finite, any shape) added to it, which lie between ``low`` and ``high``."""
    low, high = min(before.low, low), max(before.high, high)
    width = _width(low, high, before.width)
    first, last = _index(low, width), _index(high, width)
    counts = np.zeros(last - first + 1, np.int64)
    if before.counts.size:
        merged = np.floor(before.edges[:-1] / width).astype(np.int64)
        np.add.at(counts, merged - first, before.counts)
    flat = values.ravel()
    seen = flat[flat != 0]
    # a power of two divides a float exactly, and the quotient is no larger than BINS
    places = np.floor(seen * seen.dtype.type(1 / width)).astype(np.int64) - first
    counts += np.bincount(places, minlength=len(counts))
    return Histogram(low, high, before.zeros + flat.size - seen.size, width, first, counts)


def _width(low: float, high: float, least: float) -> float:
    """The smallest power of two, from ``least`` on, under which the bins from ``low`` to ``high`` are BINS or fewer."""
    width = least
    spread = (high - low) / BINS
    if spread > width:
        width = max(width, 2.0 ** math.floor(math.log2(spread)))
    while _index(high, width) - _index(low, width) >= BINS:
        width *= 2
    return width


def _index(value: float, width: float) -> int:
    return math.floor(value / width)
