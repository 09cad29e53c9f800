"""What a picture shows: points with their 95 % intervals, the front, the axes' limits and ticks.

A cost runs to the right on a log scale, quality upwards. How it is drawn stands in ``drawing.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from matplotlib.ticker import MaxNLocator


@dataclass(frozen=True)
class Point:
    """One artifact: its cost with low and high end, its quality likewise, and how it is drawn.

    ``title`` is shown when the pointer rests on the mark.
    """

    key: str
    name: str
    title: str
    role: Literal["baseline", "candidate", "control"]
    x: tuple[float, float, float]
    y: tuple[float, float, float]
    on_front: bool
    chosen: bool


@dataclass(frozen=True)
class Chart:
    """What is drawn. ``limit`` is the lowest quality that is tolerated; better is always drawn upwards."""

    points: tuple[Point, ...]
    front: tuple[str, ...]
    x_label: str
    y_label: str
    x_words: Callable[[float], str]
    y_words: Callable[[float], str]
    limit: float | None
    higher_is_better: bool


def log_ticks(low: float, high: float, gap: float) -> list[float]:
    """Round numbers between ``low`` and ``high``, as many as stand at least a factor of 10**``gap`` apart."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for steps in ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) < 3:
            break
        if all(np.log10(right / left) >= gap for left, right in pairwise(ticks)):
            return ticks
    if len(ticks) < 3:
        most = max(2, int(np.log10(high / low) / gap))
        linear = MaxNLocator(most - 1).tick_values(low, high)
        return [float(tick) for tick in linear if low <= tick <= high]
    return ticks[:: int(np.ceil(gap * len(ticks) / np.log10(high / low)))]


def x_limits(points: Sequence[Point]) -> tuple[float, float]:
    """Left and right end of the log axis, with some room beside the outermost intervals."""
    costs = [cost for point in points for cost in point.x if cost > 0]
    low, high = min(costs), max(costs)
    room = max(0.06 * np.log(high / low), np.log(1.15))
    return float(low / np.exp(room)), float(high * np.exp(room))


def y_limits(chart: Chart) -> tuple[float, float]:
    """Bottom and top of the picture; points far below all others are left under the bottom on purpose."""
    shown = [point for point in chart.points if point.y[0] not in fallen(chart)]
    values = [value for point in shown for value in point.y]
    if chart.limit is not None:
        values.append(chart.limit)
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    bottom, top = low - room, high + room
    if len(shown) < len(chart.points):
        if chart.higher_is_better:
            bottom -= 2 * room
        else:
            top += 2 * room
    return (bottom, top) if chart.higher_is_better else (top, bottom)


def fallen(chart: Chart) -> frozenset[float]:
    """Qualities so far below the rest that drawing them to scale would press all others into a line.

    The widest gap between neighbours, where it is over 1.5 times the span of those above it and these are the
    greater part.
    """
    sign = 1.0 if chart.higher_is_better else -1.0
    ordered = sorted((sign * point.y[0] for point in chart.points), reverse=True)
    for index, (upper, lower) in enumerate(pairwise(ordered), start=1):
        above = max(ordered[0] - upper, 1e-9 * abs(ordered[0]))
        if 2 * index >= len(ordered) and index > 2 and upper - lower > 1.5 * above:
            return frozenset(sign * value for value in ordered[index:])
    return frozenset()
