"""Draws a chart with matplotlib's object interface: no global state, no display.

A point's role shows in its shape as well as in its colour, so that the picture also reads in black and white.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from tinypress.report.chart import Chart, Point, log_ticks, x_limits, y_limits
from tinypress.report.labels import Box, Place, Spot, place
from tinypress.report.svg import Palette, any_glyph

_MARK = {"baseline": "D", "candidate": "o", "control": "^"}
_SIZE = {"baseline": 7.5, "candidate": 8.0, "control": 8.0}
_LONGEST = 36


def draw(
    chart: Chart, palette: Palette, width: int, height: int, font: float = 12.0, head: float = 0.0
) -> Figure:
    """The picture at ``width`` × ``height`` CSS pixels, text at ``font`` pixels; every mark's gid is its key.

    ``head`` pixels at the top stay free for a title.
    """
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    figure.patch.set_alpha(0.0)
    left, bottom = (5.0 * font, 4.0 * font)
    axes = figure.add_axes(
        (left / width, bottom / height, 1 - (left + font) / width, 1 - (bottom + 2 * font + head) / height)
    )
    _set_axes(axes, chart, palette, font)
    _draw_guides(axes, chart, palette, font)
    _draw_points(axes, chart, palette)
    _draw_labels(figure, axes, chart, palette, font)
    return figure


def _set_axes(axes: Any, chart: Chart, palette: Palette, font: float) -> None:
    axes.set_facecolor("none")
    axes.set_xscale("log")
    low, high = x_limits(chart.points)
    axes.set_xlim(low, high)
    axes.set_ylim(*y_limits(chart))
    gap = 5.5 * font / axes.get_window_extent().width * np.log10(high / low)
    axes.xaxis.set_major_locator(FixedLocator(log_ticks(low, high, gap)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(chart.x_words(value))))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: chart.y_words(value)))
    axes.tick_params(which="both", length=0, labelsize=font, labelcolor=palette.soft, pad=0.5 * font)
    axes.grid(True, color=palette.line, linewidth=1)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(palette.line)
    axes.set_xlabel(chart.x_label, fontsize=font, color=palette.soft, labelpad=0.5 * font, parse_math=False)
    axes.set_title(
        chart.y_label, fontsize=font, color=palette.soft, loc="left", pad=0.6 * font, parse_math=False
    )


def _short(text: str) -> str:
    """A round number without the zeros that show precision: '10.0 kB' is '10 kB' on an axis."""
    number, _, unit = text.partition(" ")
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {unit}"


def _draw_guides(axes: Any, chart: Chart, palette: Palette, font: float) -> None:
    if chart.limit is not None:
        axes.axhline(chart.limit, color=palette.soft, linewidth=1, linestyle=(0, (2, 3)), zorder=1.5)
        axes.annotate(
            "tolerance",
            (1, chart.limit),
            xycoords=("axes fraction", "data"),
            xytext=(0, -3),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=0.92 * font,
            color=palette.soft,
        )
    front = _front(axes, chart)
    if len(front) > 1:
        axes.plot(*zip(*front, strict=True), color=palette.candidate, linewidth=1.6, zorder=2)


def _front(axes: Any, chart: Chart) -> list[tuple[float, float]]:
    """The corners of the Pareto front, cheapest first."""
    by_name = {point.name: point for point in chart.points}
    members = sorted((by_name[name] for name in chart.front if name in by_name), key=lambda point: point.x[0])
    return [(point.x[0], _drawn_height(axes, point)) for point in members]


def _drawn_height(axes: Any, point: Point) -> float:
    """The point's quality, or a little above the bottom edge where it lies below the picture."""
    bottom, top = axes.get_ylim()
    edge = float(bottom + 0.03 * (top - bottom))
    return max(point.y[0], edge) if top > bottom else min(point.y[0], edge)


def _draw_points(axes: Any, chart: Chart, palette: Palette) -> None:
    for point in chart.points:
        colour = _colour(point, palette)
        height = _drawn_height(axes, point)
        if height == point.y[0]:
            x_ends = [[max(0.0, point.x[0] - point.x[1])], [max(0.0, point.x[2] - point.x[0])]]
            y_ends = [[max(0.0, point.y[0] - point.y[1])], [max(0.0, point.y[2] - point.y[0])]]
            axes.errorbar(
                [point.x[0]],
                [height],
                xerr=x_ends if point.x[1] < point.x[2] else None,
                yerr=y_ends,
                fmt="none",
                ecolor=colour,
                elinewidth=1,
                alpha=0.45,
                zorder=2.5,
            )
        if point.chosen:
            axes.plot(
                [point.x[0]], [height], "o", markersize=17, markerfacecolor="none",
                markeredgecolor=palette.ink, markeredgewidth=1.6, zorder=3, clip_on=False,
            )  # fmt: skip
        filled = point.on_front or point.role == "baseline"
        axes.plot(
            [point.x[0]], [height], _MARK[point.role] if height == point.y[0] else "v",
            markersize=_SIZE[point.role], markerfacecolor=colour if filled else palette.panel,
            markeredgecolor=colour, markeredgewidth=1.7, zorder=4, clip_on=False, gid=point.key,
        )  # fmt: skip


def _colour(point: Point, palette: Palette) -> str:
    return {"baseline": palette.ink, "candidate": palette.candidate, "control": palette.control}[point.role]


def _draw_labels(figure: Figure, axes: Any, chart: Chart, palette: Palette, font: float) -> None:
    renderer = FigureCanvasAgg(figure).get_renderer()
    order = sorted(chart.points, key=lambda p: (not p.chosen, p.role != "baseline", not p.on_front))
    spots, texts = [], []
    for point in order:
        text = _label(axes, chart, point, font)
        with any_glyph():
            size = text.get_window_extent(renderer)
        x, y = axes.transData.transform((point.x[0], _drawn_height(axes, point)))
        reach = 11.0 if point.chosen else 7.0
        spots.append(Spot(x, y, size.width, 1.2 * font, reach, must=point.chosen))
        texts.append(text)
    area = axes.get_window_extent()
    frame = Box(area.x0 - 2, area.y0, area.x1 + 0.6 * font, area.y1 + 2)
    places = place(spots, frame, _drawn_lines(axes, chart))
    for point, text, spot, spotted in zip(order, texts, spots, places, strict=True):
        if spotted is None:
            text.remove()
            continue
        _put(axes, text, spot, spotted, palette.ink if point.chosen else _colour(point, palette))


def _drawn_lines(axes: Any, chart: Chart) -> list[Box]:
    """Error bars, the tolerance and the front as thin boxes in pixels."""
    boxes = []
    for point in chart.points:
        ends = axes.transData.transform([(point.x[0], point.y[1]), (point.x[0], point.y[2])])
        boxes.append(Box(ends[0, 0] - 0.5, ends[:, 1].min(), ends[0, 0] + 0.5, ends[:, 1].max()))
    if chart.limit is not None:
        area = axes.get_window_extent()
        limit = axes.transData.transform((chart.points[0].x[0], chart.limit))[1]
        boxes.append(Box(area.x0, limit - 0.5, area.x1, limit + 0.5))
    corners = [axes.transData.transform(corner) for corner in _front(axes, chart)]
    for start, end in pairwise(corners):
        steps = max(1, int(np.hypot(*(end - start)) / 4))
        boxes += [
            Box(x - 2, y - 2, x + 2, y + 2)
            for x, y in (start + (end - start) * (step / steps) for step in range(1, steps))
        ]
    return boxes


def _label(axes: Any, chart: Chart, point: Point, font: float) -> Any:
    name = " ".join(point.name.split())
    weight = "bold" if point.chosen else "normal"
    name = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
    if _drawn_height(axes, point) != point.y[0]:
        name += f" {chart.y_words(point.y[0])}"
    return axes.text(
        0, 0, name, fontsize=font, fontweight=weight, transform=axes.figure.dpi_scale_trans,
        ha="center", va="center", zorder=5, parse_math=False, gid=f"label-{point.key}",
    )  # fmt: skip


def _put(axes: Any, text: Any, spot: Spot, spotted: Place, colour: str) -> None:
    """Move a label to its place; in inches, so that a picture saved at another dpi keeps its layout."""
    box = spotted.box
    text.set_position(((box.left + box.right) / 144, (box.bottom + box.top) / 144))
    text.set_color(colour)
    if spotted.leader is not None:
        xs = [spot.x / 72, spotted.leader[0] / 72]
        ys = [spot.y / 72, spotted.leader[1] / 72]
        inches = axes.figure.dpi_scale_trans
        axes.plot(xs, ys, color=colour, linewidth=0.8, alpha=0.6, transform=inches, zorder=3.5)
