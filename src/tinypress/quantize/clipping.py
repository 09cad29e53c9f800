"""Where to clip a value that was seen as a histogram: percentile, least squared error, least divergence.

Each function gives the ends of a range that holds zero and is no wider than what was seen. What lies beyond an end is
rounded to it, and in return the steps between the ends are finer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from tinypress.quantize.histogram import Histogram

SHARE = 0.9999
_SHRINKS = 128
_ROUNDS = 3
_THRESHOLDS = 256

Ends = tuple[float, float]
Floats = NDArray[np.float64]


def percentile(seen: Histogram, levels: int, share: float = SHARE) -> Ends:
    """The ends beyond each of which no more than ``1 - share`` of the values lie.

    Reference: McKinstry et al. 2018, arXiv:1809.04191; the 99.99th percentile is the one that Wu et al. 2020,
    arXiv:2004.09602, table 5, found to hold for most networks. A place within a bin is interpolated.
    """
    beyond = (1 - share) * seen.total
    above = _crossing(seen.counts[::-1], beyond)
    below = _crossing(seen.counts, beyond)
    edges = seen.edges
    low, high = edges[0] + below * seen.width, edges[-1] - above * seen.width
    return max(seen.low, min(float(low), 0.0)), min(seen.high, max(float(high), 0.0))


def _crossing(counts: NDArray[np.int64], beyond: float) -> float:
    """How many bins, and which part of one, hold ``beyond`` values, counted from the first."""
    sums = np.cumsum(counts)
    place = int(np.searchsorted(sums, beyond))
    if place >= len(counts):
        return float(len(counts))
    before = float(sums[place - 1]) if place else 0.0
    return place + (beyond - before) / max(1, int(counts[place]))


def least_squares(seen: Histogram, levels: int) -> Ends:
    """The ends with the least sum of (x - Q(x))^2, with values spread evenly within a bin.

    Both ends are drawn in together, then each by itself, ``_ROUNDS`` times. The range that was seen is among those
    that are tried.

    Reference: Nagel et al. 2021, arXiv:2106.08295, equation 13.
    """
    best = (seen.low, seen.high)
    error = squared_error(seen, best, levels)
    for ends in _candidates(best, _SHRINKS):
        found = squared_error(seen, ends, levels)
        if found < error:
            best, error = ends, found
    for _ in range(_ROUNDS):
        was = best
        for ends in (*_one_end(best, seen, 0), *_one_end(best, seen, 1)):
            found = squared_error(seen, ends, levels)
            if found < error:
                best, error = ends, found
        if best == was:
            break
    return best


def _candidates(ends: Ends, steps: int) -> Iterator[Ends]:
    return ((ends[0] * k / steps, ends[1] * k / steps) for k in range(1, steps))


def _one_end(best: Ends, seen: Histogram, which: int) -> Iterator[Ends]:
    for k in range(_SHRINKS + 1):
        end = (seen.low, seen.high)[which] * k / _SHRINKS
        ends = (end, best[1]) if which == 0 else (best[0], end)
        if ends != (0.0, 0.0):
            yield ends


def squared_error(seen: Histogram, ends: Ends, levels: int) -> float:
    """The sum over all values of (x - Q(x))^2 with ``levels`` + 1 integers from end to end."""
    scale, zero_point = affine(*ends, levels)
    low, high = -zero_point * scale, (levels - zero_point) * scale
    edges = seen.edges
    whole = _integral(edges, low, high, scale)
    return float((np.diff(whole) / seen.width) @ seen.counts)


def _integral(x: Floats, low: float, high: float, scale: float) -> Floats:
    """The integral from 0 to x of the squared rounding error, [.] in closed form.

    Between the ends the error is a saw of period ``scale``, whose square sums up to scale^3 / 12 a period; beyond
    them it is the distance from the end.
    """
    inside = np.clip(x, low, high)
    periods = np.rint(inside / scale)
    rest = inside - periods * scale
    beyond = x - inside
    return periods * scale**3 / 12 + rest**3 / 3 + beyond**3 / 3


def least_divergence(seen: Histogram, levels: int) -> Ends:
    """The ends under which the quantized values keep most of the information of those that were seen.

    For each threshold t, P is the histogram from -t to t with all that lies beyond added to its last bins, and Q the
    same bins without that, brought to ``levels`` + 1 levels and spread evenly over the bins of each that are not
    empty. The t with the least KL(P || Q) is taken. Zeros are left out, which every range represents.

    Reference: Migacz 2017, "8-bit Inference with TensorRT", GTC, there for ranges that are symmetric; a range of
    one sign has all levels on its side here.
    """
    size = len(seen.counts)
    below, above = max(0, -seen.first), max(0, seen.first + size)  # bins on either side of zero
    reach = max(below, above)
    best, least = (seen.low, seen.high), math.inf
    step = max(1, reach // _THRESHOLDS)
    for threshold in range(reach, 0, -step):
        start = max(0, -threshold - seen.first)
        end = min(size, threshold - seen.first)
        if end - start <= levels + 1:
            break
        divergence = _divergence(seen.counts, start, end, levels + 1)
        if divergence < least:
            least = divergence
            best = max(seen.low, -threshold * seen.width), min(seen.high, threshold * seen.width)
    return best


def _divergence(counts: NDArray[np.int64], start: int, end: int, levels: int) -> float:
    """KL(P || Q) of the bins from ``start`` to ``end``."""
    inside = counts[start:end].astype(np.float64)
    p = inside.copy()
    p[0] += counts[:start].sum()
    p[-1] += counts[end:].sum()
    begins = np.arange(levels) * len(inside) // levels
    filled = np.add.reduceat((inside > 0).astype(np.float64), begins)
    each = np.add.reduceat(inside, begins) / np.maximum(filled, 1)
    q = np.repeat(each, np.diff(np.append(begins, len(inside)))) * (inside > 0)
    if not q.sum():
        return math.inf
    p, q = p / p.sum(), q / q.sum()
    # an end bin that holds nothing but what was clipped has no counterpart: as good as no match
    q = np.maximum(q, 1e-12)
    some = p > 0
    return float((p[some] * np.log(p[some] / q[some])).sum())


def affine(low: float, high: float, levels: int) -> tuple[float, int]:
    """Scale and zero point of a range that holds zero: (high - low) / levels and round(-low / scale).

    Reference: Jacob et al. 2018, arXiv:1712.05877, equation 13.
    """
    scale = float(np.float32((high - low) / levels)) or 1.0
    return scale, int(np.clip(np.rint(-low / scale), 0, levels))


Clip = Callable[[Histogram, int], Ends]
