"""The pictures of a receipt: quality against bytes and against latency, for the page and as a PNG file."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tinypress.files import write_bytes
from tinypress.receipt import Candidate, Receipt
from tinypress.report.chart import Chart, Point
from tinypress.report.drawing import draw
from tinypress.report.sentences import cost, gain, saving
from tinypress.report.svg import PAPER, SENTINELS, any_glyph, inline_svg
from tinypress.report.words import byte_size, duration, figures, fixed, score, score_span

WIDE = (1040, 440)
NARROW = (390, 520)


def bytes_chart(receipt: Receipt) -> Chart:
    """Quality on test against the bytes of the file; the front is the receipt's own."""
    sizes = {c.name: (float(c.artifact.bytes),) * 3 for c in receipt.candidates}
    return _chart(receipt, "bytes of the file, log scale", byte_size, sizes, receipt.pareto)


def latency_chart(receipt: Receipt) -> Chart | None:
    """Quality on test against latency, or ``None`` where no latency was measured.

    The front is found here, on latency and validation: the receipt's is on bytes.
    """
    times = {
        c.name: (c.latency_ms.median, c.latency_ms.low, c.latency_ms.high)
        for c in receipt.candidates
        if c.latency_ms is not None
    }
    if not times:
        return None
    front = latency_front(receipt)
    return _chart(receipt, "time of one forward pass, log scale", duration, times, front)


def latency_front(receipt: Receipt) -> tuple[str, ...]:
    """Names that no other (controls aside) beats in median latency and validation at once, fastest first."""
    sign = 1.0 if receipt.higher_is_better else -1.0
    timed = [
        (c.latency_ms.median, -sign * c.validation.value, c.name)
        for c in receipt.candidates
        if c.latency_ms is not None and c.role != "control"
    ]
    front: list[tuple[float, float, str]] = []
    for entry in sorted(timed):
        if not front or entry[1] < front[-1][1]:
            front.append(entry)
    return tuple(name for _, _, name in front)


def _chart(
    receipt: Receipt,
    x_label: str,
    words: Callable[[float], str],
    costs: Mapping[str, tuple[float, float, float]],
    front: tuple[str, ...],
) -> Chart:
    points = tuple(
        Point(
            key=f"point-{index}",
            name=candidate.name,
            title=_title(receipt, candidate, words(costs[candidate.name][0])),
            role=candidate.role,
            x=costs[candidate.name],
            y=(candidate.quality.value, candidate.quality.low, candidate.quality.high),
            on_front=candidate.name in front,
            chosen=candidate.name == receipt.chosen,
        )
        for index, candidate in enumerate(receipt.candidates)
        if candidate.name in costs
    )
    points_are_shares = receipt.tolerance.unit == "points"
    allowed = receipt.tolerance.value / (100 if points_are_shares else 1)
    best = receipt.baseline.quality.value
    better = "higher is better" if receipt.higher_is_better else "lower is better, drawn upwards"
    return Chart(
        points=points,
        front=front,
        x_label=x_label,
        y_label=f"{receipt.metric} on test ({better})",
        x_words=words,
        y_words=_whole_percent if points_are_shares else figures,
        limit=best - allowed if receipt.higher_is_better else best + allowed,
        higher_is_better=receipt.higher_is_better,
    )


def _title(receipt: Receipt, candidate: Candidate, cost: str) -> str:
    quality = f"{score(receipt, candidate.quality.value)} {score_span(receipt, candidate.quality)}"
    return f"{candidate.name} ({candidate.role}): {cost}, {receipt.metric} {quality}"


def _whole_percent(share: float) -> str:
    return f"{fixed(100 * share, 1).removesuffix('.0')} %"


def page_svg(chart: Chart, prefix: str, label: str) -> Markup:
    """``chart`` for the page, twice: for wide windows and for phones; the style sheet shows one of them."""
    titles = {point.key: point.title for point in chart.points}
    wide = inline_svg(draw(chart, SENTINELS, *WIDE), f"{prefix}w", label, titles)
    narrow = inline_svg(draw(chart, SENTINELS, *NARROW), f"{prefix}n", label, titles)
    return Markup('<div class="wide">{}</div><div class="narrow">{}</div>').format(wide, narrow)


def draw_summary(receipt: Receipt, path: Path) -> None:
    """Write quality against bytes to ``path`` as a PNG picture of 1,840 × 1,000 pixels, for a README.

    Raises:
        RunError: the file cannot be written.
    """
    figure = draw(bytes_chart(receipt), PAPER, 920, 500, head=80)
    figure.patch.set(facecolor=PAPER.panel, alpha=1.0)
    chosen = receipt.candidate(receipt.chosen)
    _text(figure, 0.948, f"{receipt.task}, pressed: {chosen.name}", 17, 44, PAPER.ink)
    if chosen.role == "baseline":
        _text(figure, 0.898, saving(receipt, chosen), 12, 136, PAPER.soft)
    else:
        _text(figure, 0.898, gain(receipt, chosen), 12, 136, PAPER.soft)
        _text(figure, 0.862, cost(receipt, chosen), 12, 136, PAPER.soft)
    _legend(figure)
    buffer = io.BytesIO()
    with any_glyph():
        figure.savefig(buffer, format="png", dpi=144, metadata={"Software": None})
    write_bytes(path, buffer.getvalue())


def _text(figure: Figure, height: float, text: str, size: float, most: int, colour: str) -> None:
    """A line at the left edge; over ``most`` characters it is set smaller, over half as many again it is cut."""
    text = textwrap.shorten(text, int(1.5 * most), placeholder=" …")
    size *= min(1.0, most / len(text))
    weight = "bold" if colour == PAPER.ink else "normal"
    figure.text(0.022, height, text, size=size, weight=weight, color=colour, va="center", parse_math=False)


def _legend(figure: Figure) -> None:
    shapes = (
        ("baseline", "D", PAPER.ink),
        ("candidate", "o", PAPER.candidate),
        ("control", "^", PAPER.control),
    )
    handles = [
        Line2D([], [], marker=mark, color="none", markeredgecolor=colour, markerfacecolor=PAPER.panel,
               markeredgewidth=1.7, markersize=8, label=label)
        for label, mark, colour in shapes
    ]  # fmt: skip
    handles.append(Line2D([], [], marker="o", color=PAPER.candidate, markersize=8, label="Pareto front"))
    figure.legend(
        handles=handles, loc="upper right", bbox_to_anchor=(0.995, 0.985), ncols=4, frameon=False,
        fontsize=11, labelcolor=PAPER.soft, handletextpad=0.3, columnspacing=1.0,
    )  # fmt: skip
