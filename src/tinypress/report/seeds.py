"""A summary over seeds in a terminal and as a page: means, spreads, drops, and candidates beside their controls."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from tinypress.files import write_bytes
from tinypress.report import words
from tinypress.report.templates import templates
from tinypress.summary import MeanDrop, SeedPair, SeedRow, SeedSummary

_STYLE = {"within": "green", "better": "green", "beyond": "red", "worse": "red", "cannot tell": "yellow"}


def seeds_table(summary: SeedSummary) -> Table:
    """One row an artifact: size, mean and spread of the quality, mean drop with its two intervals, and the verdict."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, collapse_padding=True)
    table.title_justify = table.caption_justify = "left"
    table.title = Text(
        f"{summary.task}: {summary.metric} on test over {len(summary.seeds)} seeds", style="bold"
    )
    table.caption = Text(
        f"mean ± standard deviation over seeds; 95 % intervals over seeds and {basis(summary)}; "
        f"tolerance {words.tolerance_words(summary.tolerance, summary.metric)}"
    )
    table.add_column("artifact", overflow="fold", max_width=30)
    for head in ("kB", head_of(summary.metric, summary), "drop, points" if _points(summary) else "drop"):
        table.add_column(head, justify="right", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    for row, following in zip(summary.rows, [*summary.rows[1:], None], strict=True):
        style = "dim" if row.role == "control" else ""
        cells = [Text(cell, style=style) for cell in row_cells(summary, row)]
        if row.drop is not None:
            cells[-1].stylize(_STYLE[row.drop.verdict])
        table.add_row(*cells, end_section=following is not None and following.role != row.role)
    return table


def pairs_table(summary: SeedSummary) -> Table:
    """One row a control: what it loses to the recipe that it controls, seed by seed and on the mean."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, title_justify="left")
    table.title = Text("Against the controls, paired by seed", style="bold")
    table.add_column("artifact", overflow="fold", max_width=26)
    table.add_column("control", overflow="fold", max_width=26)
    table.add_column("ahead, points" if _points(summary) else "ahead", justify="right", overflow="fold")
    table.add_column("each seed", justify="right", overflow="fold")
    table.add_column("the artifact is", no_wrap=True)
    for pair in summary.pairs:
        cells = [Text(cell) for cell in pair_cells(pair)]
        cells[-1].stylize(_STYLE[pair.verdict])
        table.add_row(*cells)
    return table


def advice(summary: SeedSummary) -> list[str]:
    """For every verdict that is open, about how many seeds or samples would settle it; a sentence each."""
    said = [
        f"{row.name}: {_would_settle(row.drop)}"
        for row in summary.rows
        if row.drop is not None and row.drop.verdict == "cannot tell"
    ]
    said += [
        f"{pair.name} beside {pair.control}: {_would_settle(pair.difference)}"
        for pair in summary.pairs
        if pair.verdict == "cannot tell"
    ]
    return said


def write_seeds_page(summary: SeedSummary, path: Path) -> None:
    """Write the page of ``summary`` to ``path``, beside the folders of the single runs.

    Raises:
        RunError: the file cannot be written.
    """
    environment = templates()
    text = environment.get_template("seeds.html").render(
        summary=summary,
        words=words,
        basis=basis(summary),
        head=head_of(summary.metric, summary),
        rows=[(row, row_cells(summary, row)) for row in summary.rows],
        pairs=[(pair, pair_cells(pair)) for pair in summary.pairs],
        advice=advice(summary),
        points=_points(summary),
        marks={
            "within": "within",
            "better": "within",
            "beyond": "beyond",
            "worse": "beyond",
            "cannot tell": "unsure",
        },
    )
    write_bytes(path, text.encode())


def row_cells(summary: SeedSummary, row: SeedRow) -> list[str]:
    """Name, size, quality, drop and verdict of one artifact as texts."""
    least, most = min(row.bytes), max(row.bytes)
    size = words.kilobytes(least) if least == most else f"{words.kilobytes(least)} to {words.kilobytes(most)}"
    quality = _quality(summary, row.mean)
    if row.spread is not None:
        quality += f" ± {_quality(summary, row.spread)}"
    drop = row.drop
    return [
        row.name,
        size,
        quality,
        "" if drop is None else _drop(drop),
        "" if drop is None else drop.verdict,
    ]


def pair_cells(pair: SeedPair) -> list[str]:
    """Both names, how far ahead, the single seeds and the verdict as texts."""
    each = " ".join(_number(value, pair.difference) for value in pair.difference.values)
    return [pair.name, pair.control, _drop(pair.difference), each, pair.verdict]


def basis(summary: SeedSummary) -> str:
    """The samples that the intervals rest on: '1,500 samples', '1,917 samples in 70 groups'."""
    text = f"{words.count(summary.samples)} samples"
    return text if summary.groups == summary.samples else f"{text} in {words.count(summary.groups)} groups"


def head_of(metric: str, summary: SeedSummary) -> str:
    """The head of the column of qualities."""
    return f"{metric} %" if _points(summary) else metric


def _points(summary: SeedSummary) -> bool:
    return bool(summary.tolerance.unit == "points")


def _quality(summary: SeedSummary, value: float) -> str:
    return words.fixed(100 * value, 2) if _points(summary) else words.figures(value, 4)


def _number(value: float, drop: MeanDrop) -> str:
    return words.fixed(value, 2) if drop.unit == "points" else words.figures(value)


def _drop(drop: MeanDrop) -> str:
    return f"{_number(drop.value, drop)} {words.span(_number(drop.low, drop), _number(drop.high, drop))}"


def _would_settle(drop: MeanDrop) -> str:
    ways = []
    if drop.seeds_needed is not None:
        ways.append(f"about {words.count(drop.seeds_needed)} seeds on these samples")
    if drop.samples_needed is not None:
        ways.append(f"about {words.count(drop.samples_needed)} test samples with these seeds")
    if not ways:
        return "neither more seeds nor more samples alone would settle it; both would have to grow"
    return f"{' or '.join(ways)} would settle it"
