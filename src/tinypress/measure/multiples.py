"""Which channel counts a kernel likes, read off its latencies at consecutive widths.

A kernel that works on m channels at once takes for w channels as long as for the next multiple of m, or falls back
to a slower one. For each m the latencies are fitted, by least squares, as

    t(w) = a + b w + c (⌈w / m⌉ m - w) + d [m does not divide w],   c, d >= 0

and m = 1 is the plain line. The m of least Bayesian information criterion is taken (Schwarz, Annals of Statistics
6:461, 1978, equation 2), and m = 1 where the other widths lose little on average.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tinypress.errors import InputError

CANDIDATES = (2, 4, 8, 16, 32)
LEAST_LOSS = 0.05


def liked_multiple(times: Mapping[int, float]) -> tuple[int, float]:
    """The multiple of widths that costs least, and the share that other widths lose on average.

    Args:
        times: latency by width, in any unit; consecutive widths, at least 9 of them.

    Returns:
        (multiple, loss): (1, 0) where no multiple explains the latencies or little is lost.

    Raises:
        InputError: too few widths, or latencies that are not above 0.
    """
    widths = np.array(sorted(times), dtype=np.float64)
    found = np.array([times[int(width)] for width in widths])
    call = f"liked_multiple({len(widths)} widths)"
    if len(widths) < 9 or not (np.isfinite(found).all() and (found > 0).all()):
        raise InputError(call, "it needs 9 latencies above 0", "Time more widths")
    best, loss, least = 1, 0.0, _criterion(*_fit(_plain(widths), found))
    for multiple in CANDIDATES:
        if len(widths) < 2 * multiple:
            continue
        columns = [_padding(widths, multiple), (widths % multiple != 0).astype(np.float64)]
        # with c, d >= 0: the better of the fits with one of the two, or with both where both are positive
        for chosen in ([columns[0]], [columns[1]], columns):
            matrix = np.column_stack([_plain(widths), *chosen])
            weights, rest = _fit(matrix, found)
            line = matrix[:, :2] @ weights[:2]
            if (weights[2:] < 0).any() or (line <= 0.1 * found).any():  # no latency is made of steps alone
                continue
            criterion = _criterion(weights, rest)
            if criterion < least:
                off = widths % multiple != 0
                least, best = criterion, multiple
                loss = float(((matrix[:, 2:] @ weights[2:]) / line)[off].mean())
    return (best, loss) if loss >= LEAST_LOSS else (1, 0.0)


def _plain(widths: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.column_stack([np.ones_like(widths), widths])


def _padding(widths: NDArray[np.float64], multiple: int) -> NDArray[np.float64]:
    padded: NDArray[np.float64] = np.ceil(widths / multiple) * multiple - widths
    return padded


def _fit(
    matrix: NDArray[np.float64], found: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    weights: NDArray[np.float64] = np.linalg.lstsq(matrix, found, rcond=None)[0].astype(np.float64)
    return weights, found - matrix @ weights


def _criterion(weights: NDArray[np.float64], rest: NDArray[np.float64]) -> float:
    count = len(rest)
    error = float((rest**2).mean())
    return count * math.log(max(error, 1e-30)) + len(weights) * math.log(count)
