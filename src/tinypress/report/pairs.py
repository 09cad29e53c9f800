"""Each layer of an artifact beside the baseline's layer of the same name, with both histograms as one picture."""

from __future__ import annotations

from dataclasses import dataclass

from tinypress.receipt import Candidate, Histogram, Layer

WIDTH, HEIGHT = 200.0, 48.0


@dataclass(frozen=True)
class Pair:
    """A layer as it was and as it is; one of the two may be missing."""

    name: str
    before: Layer | None
    now: Layer | None


@dataclass(frozen=True)
class Overlay:
    """SVG path data of both histograms in a box of ``WIDTH`` × ``HEIGHT``, over weights from low to high."""

    before: str
    now: str
    low: float
    high: float


def pair_layers(candidate: Candidate, baseline: Candidate) -> tuple[Pair, ...]:
    """The artifact's layers in their order, then those of the baseline that it no longer has."""
    was = {layer.name: layer for layer in baseline.layers}
    now = {layer.name for layer in candidate.layers}
    kept = [Pair(layer.name, was.get(layer.name), layer) for layer in candidate.layers]
    gone = [Pair(layer.name, layer, None) for layer in baseline.layers if layer.name not in now]
    return (*kept, *gone)


def overlay(before: Histogram | None, now: Histogram | None) -> Overlay | None:
    """Both histograms on one axis, as densities; ``None`` where neither holds a weight.

    Heights are shares per unit of weight, so that histograms of unlike bins compare. A few bins that tower
    over all others (exact zeros of a pruned layer) are cut at the top, or the rest could not be seen.
    """
    pictures = [h for h in (before, now) if h is not None and any(h.counts)]
    if not pictures:
        return None
    low, high = min(h.low for h in pictures), max(h.high for h in pictures)
    if low == high:
        low, high = low - 0.5, high + 0.5
    top = max(_usual_height(h) for h in pictures)
    return Overlay(_path(before, low, high, top), _path(now, low, high, top), low, high)


def _densities(histogram: Histogram) -> list[float]:
    total = sum(histogram.counts)
    width = (histogram.high - histogram.low) / len(histogram.counts) or 1.0
    return [count / total / width for count in histogram.counts]


def _usual_height(histogram: Histogram) -> float:
    """The highest bin, unless it towers over the third highest."""
    heights = sorted(_densities(histogram), reverse=True)
    if len(heights) < 3 or heights[2] == 0 or heights[0] <= 2.5 * heights[2]:
        return 1.05 * heights[0]
    return 1.25 * heights[2]


def _path(histogram: Histogram | None, low: float, high: float, top: float) -> str:
    """The outline of a histogram as steps; a single value (no width) stands as a bar of one bin."""
    if histogram is None or not any(histogram.counts):
        return ""
    left, right = histogram.low, histogram.high
    if left == right:
        left, right = left - (high - low) / 80, right + (high - low) / 80
    step = (right - left) / len(histogram.counts)
    x = _x(left, low, high)
    parts = [f"M{x} {HEIGHT:g}"]
    for index, density in enumerate(_densities(histogram)):
        y = HEIGHT * (1 - min(1.0, density / top))
        x = _x(left + (index + 1) * step, low, high)
        parts.append(f"V{y:.1f}H{x}")
    return "".join(parts) + f"V{HEIGHT:g}Z"


def _x(value: float, low: float, high: float) -> str:
    return f"{WIDTH * (value - low) / (high - low):.1f}"
