"""Tells in what order techniques go: the matrix of all pairs as a picture, and as a page with every interval."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tinypress.files import write_bytes
from tinypress.press.composed import Combined, Compositions, Orders
from tinypress.receipt import Drop
from tinypress.report.svg import PAPER, any_glyph
from tinypress.report.words import figures, fixed, kilobytes, percent

_CELL, _LEFT, _HEAD, _FOOT = 54, 150, 190, 74
_NO, _NOT_HERE, _SELF = "#e7e9ec", "#f6f2ea", "#ffffff"


def draw_compositions(result: Compositions, path: Path) -> None:
    """Write the matrix to ``path`` as a PNG picture: rows go first, columns second.

    A number is the drop on test; ● marks the order of a pair that is better beyond its interval, ○ the one that
    validation chose where test sees no difference. Letters are the reasons that the page lists.

    Raises:
        RunError: the file cannot be written.
    """
    labels = list(result.steps)
    side = _CELL * len(labels)
    width, height = _LEFT + side + 60, _HEAD + side + _FOOT
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    figure.patch.set_facecolor(PAPER.panel)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.axis("off")
    worst = max((pair.drop.value for pair in result.pairs if pair.drop is not None), default=0.0)
    letters = reasons(result)
    with any_glyph():
        for row, first in enumerate(labels):
            axes.text(
                _LEFT - 8,
                _HEAD + (row + 0.5) * _CELL,
                first,
                ha="right",
                va="center",
                size=11,
                color=PAPER.ink,
            )
            axes.text(
                _LEFT + (row + 0.5) * _CELL, _HEAD - 8, first, rotation=60, ha="left", va="bottom", size=11,
                color=PAPER.ink, rotation_mode="anchor",
            )  # fmt: skip
            for column, second in enumerate(labels):
                corner = (_LEFT + column * _CELL, _HEAD + row * _CELL)
                pair = result.pair(first, second) if first != second else None
                _draw_cell(axes, corner, pair, _order_of(result, first, second), worst, letters)
        axes.text(
            14, 26, f"{result.task}: the row first, then the column", size=15, weight="bold", color=PAPER.ink
        )
        axes.text(14, 48, _legend(result), size=10.5, color=PAPER.soft)
        axes.text(
            14,
            height - 44,
            "grey: forbidden on every network      sand: not on this network      letters: the reason, on the page",
            size=10.5,
            color=PAPER.soft,
        )
        axes.text(
            14,
            height - 22,
            "● the better order, beyond the interval      ○ chosen on validation, no difference seen on test",
            size=10.5,
            color=PAPER.soft,
        )
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    write_bytes(path, buffer.getvalue())


def _draw_cell(
    axes: object,
    corner: tuple[float, float],
    pair: Combined | None,
    order: Orders | None,
    worst: float,
    letters: dict[str, str],
) -> None:
    x, y = corner
    colour, text, ink = _SELF, "", PAPER.ink
    if pair is not None and pair.drop is not None:
        share = max(0.0, pair.drop.value) / worst if worst > 0 else 0.0
        colour, text = _mixed(share), _short_drop(pair.drop)
        ink = "#ffffff" if share > 0.55 else PAPER.ink
    elif pair is not None:
        reason = pair.forbidden or pair.impossible or ""
        colour, text, ink = (
            (_NO if pair.forbidden else _NOT_HERE),
            letters.get(reason, ""),
            PAPER.soft,
        )
    box = Rectangle(
        (x + 1, y + 1), _CELL - 2, _CELL - 2, facecolor=colour, edgecolor=PAPER.line, linewidth=0.8
    )
    axes.add_patch(box)  # type: ignore[attr-defined]
    axes.text(x + _CELL / 2, y + _CELL / 2, text, ha="center", va="center", size=11.5, color=ink)  # type: ignore[attr-defined]
    if order is not None and pair is not None and (order.first, order.second) == (pair.first, pair.second):
        mark = "○" if order.settled == "no difference seen" else "●"
        if order.settled != "worse":
            axes.text(x + _CELL - 11, y + 12, mark, ha="center", va="center", size=11, color=ink)  # type: ignore[attr-defined]


def _order_of(result: Compositions, first: str, second: str) -> Orders | None:
    return next((order for order in result.orders if {order.first, order.second} == {first, second}), None)


def _mixed(share: float) -> str:
    """White for no loss, the deep blue of the pictures for the greatest."""
    low, high = (247, 250, 255), (27, 95, 174)
    return "#" + "".join(
        f"{round(a + (b - a) * min(1.0, share)):02x}" for a, b in zip(low, high, strict=True)
    )


def _short_drop(drop: Drop) -> str:
    return fixed(drop.value, 1) if drop.unit == "points" else figures(drop.value, 2)


def _legend(result: Compositions) -> str:
    unit = "points" if result.unit == "points" else result.metric
    return f"how much worse than the original on test, in {unit}; each pair was trained for {_epochs(result)}"


def reasons(result: Compositions) -> dict[str, str]:
    """A letter for every reason why a pair was not tried."""
    found = dict.fromkeys(pair.forbidden for pair in result.pairs if pair.forbidden)
    found |= dict.fromkeys(pair.impossible for pair in result.pairs if pair.impossible)
    return {reason: _letter(number) for number, reason in enumerate(found)}


def _letter(number: int) -> str:
    return chr(ord("a") + number) if number < 26 else f"a{number - 25}"


def compositions_page(result: Compositions, picture: str, level: int = 1) -> str:
    """The result as Markdown; ``picture`` is where the page finds the drawing."""
    settled = [order for order in result.orders if order.settled != "no difference seen"]
    head = "#" * level
    about = f"{result.about.rstrip('.')}. " if result.about else ""
    drawing = f"![Every pair of techniques in both orders]({picture})"
    parts = [
        f"{head} In what order: {result.task}\n\n{about}{_summary(result, settled)}\n\n{drawing}\n",
        f"{head}# What cannot be\n\n{_table(('', 'reason', 'pairs'), _reason_rows(result))}",
        f"{head}# Which order is better\n\n{_explained(result)}\n\n{_table(_ORDER_HEAD, _order_rows(result))}",
        f"{head}# The steps\n\n{_table(('', 'step'), _step_rows(result))}",
        f"{head}# Every pair that was measured\n\n{_table(_PAIR_HEAD, _pair_rows(result))}",
    ]
    return "\n".join(parts)


_PAIR_HEAD = ("pair", "worse than the original on test", "kB", "shipped as")
_ORDER_HEAD = ("better on validation", "gain on test over the other order", "test says")


def _summary(result: Compositions, settled: Sequence[Orders]) -> str:
    worked = sum(pair.drop is not None for pair in result.pairs)
    forbidden = sum(pair.forbidden is not None for pair in result.pairs)
    impossible = sum(pair.impossible is not None for pair in result.pairs)
    base = percent(result.baseline) if result.unit == "points" else figures(result.baseline)
    return (
        f"The original has {result.metric} {base} on {result.samples:,} test samples. Of {len(result.pairs)} ordered "
        f"pairs {worked} were made and measured, {forbidden} are forbidden on every network, and {impossible} cannot "
        f"be on this one. {len(result.orders)} pairs work both ways: for {len(settled)} of them test tells the "
        "orders apart."
    )


def _explained(result: Compositions) -> str:
    return (
        "A pair that does not train by itself is followed by `recover` (before integers are fixed). Each training "
        f"takes {_epochs(result)}, that of a new student as long as the task trains from scratch. The order was "
        "chosen on validation, and the gain is paired on test with its 95 % interval. One seed. Of so many "
        "comparisons about one in twenty would leave zero out by chance alone, so a single line here is a hint and a "
        "pattern over several is a finding."
    )


def _epochs(result: Compositions) -> str:
    if result.epochs is None:
        return "the task's own number of epochs"
    return f"{result.epochs} epoch" + ("s" if result.epochs != 1 else "")


def _reason_rows(result: Compositions) -> Sequence[tuple[str, ...]]:
    rows = []
    for reason, letter in reasons(result).items():
        which = [p for p in result.pairs if reason in (p.forbidden, p.impossible)]
        everywhere = "" if which[0].forbidden else " (on this network)"
        shown = [f"{p.first} > {p.second}" for p in which]
        more = f" and {len(shown) - 4} more" if len(shown) > 4 else ""
        rows.append((letter, reason + everywhere, ", ".join(shown[:4]) + more))
    return rows


def _order_rows(result: Compositions) -> Sequence[tuple[str, ...]]:
    ranked = sorted(
        result.orders, key=lambda order: (order.settled == "no difference seen", -order.gain.value)
    )
    return [
        (
            f"{order.first} > {order.second}" + (" (a tie)" if order.tie_on_validation else ""),
            gain_text(order.gain),
            {"better": "better", "worse": "the other order is better"}.get(order.settled, order.settled),
        )
        for order in ranked
    ]


def gain_text(gain: Drop) -> str:
    """A difference with its interval, in the unit of the metric."""
    if gain.unit == "points":
        return f"{fixed(gain.value, 1)} points [{fixed(gain.low, 1)}, {fixed(gain.high, 1)}]"
    return f"{figures(gain.value)} [{figures(gain.low)}, {figures(gain.high)}]"


def _step_rows(result: Compositions) -> Sequence[tuple[str, ...]]:
    rows = []
    for label, step in result.steps.items():
        said = [
            f"{key}={value!r}"
            for key, value in step.items()
            if key != "technique" and value not in (None, [], ())
        ]
        rows.append((label, f"`{step['technique']}({', '.join(said)})`"))
    return rows


def _pair_rows(result: Compositions) -> Sequence[tuple[str, ...]]:
    return [
        (f"{pair.first} > {pair.second}", gain_text(pair.drop), kilobytes(pair.bytes), str(pair.ships))
        for pair in result.pairs
        if pair.drop is not None and pair.bytes is not None
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([lines[0], f"|{'---|' * len(head)}", *lines[1:], ""])
