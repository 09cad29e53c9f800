"""The receipt in a terminal: all artifacts in one table, the layers of one artifact, the findings.

All text goes in as ``Text``: a name with square brackets is a name and no markup.
"""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from tinypress.receipt import Candidate, Receipt
from tinypress.report.pairs import Pair, pair_layers
from tinypress.report.sentences import grouped_findings, saving
from tinypress.report.words import (
    NOT_MEASURED,
    TIMES,
    byte_size,
    count,
    drop_number,
    drop_span,
    kilobytes,
    percent,
    ratio,
    score,
    score_span,
    shape_words,
    sparsity,
    tolerance_words,
)

_VERDICT_STYLE = {"within": "green", "beyond": "red", "cannot tell": "yellow"}
_CHOSEN, _FRONT = "▶", "•"


def summary_table(receipt: Receipt) -> Table:
    """One row an artifact: size, time, quality on test, drop and verdict. Controls stand below a line.

    The chosen artifact is marked with an arrow, those on the Pareto front with a dot.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, collapse_padding=True)
    table.title_justify = "left"
    table.title = Text(f"{receipt.task}: {receipt.metric} on test, 95 % intervals", style="bold")
    table.caption = Text(
        f"{_CHOSEN} chosen   {_FRONT} on the Pareto front   "
        f"tolerance {tolerance_words(receipt.tolerance, receipt.metric)}"
    )
    table.caption_justify = "left"
    table.add_column("", width=1)
    table.add_column("artifact", overflow="fold", max_width=28)
    for head in ("kB", "smaller", "time"):
        table.add_column(head, justify="right", no_wrap=True)
    points = receipt.tolerance.unit == "points"
    table.add_column(f"{receipt.metric}{' %' if points else ''}", justify="right", overflow="fold")
    table.add_column("drop, points" if points else "drop", justify="right", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    ordered = sorted(receipt.candidates, key=lambda c: ("baseline", "candidate", "control").index(c.role))
    for candidate, following in zip(ordered, [*ordered[1:], None], strict=True):
        ends = following is not None and following.role != candidate.role
        table.add_row(*_summary_row(receipt, candidate), end_section=ends)
    return table


def _summary_row(receipt: Receipt, candidate: Candidate) -> list[Text]:
    ours, theirs = candidate.artifact.bytes, receipt.baseline.artifact.bytes
    chosen = candidate.name == receipt.chosen
    mark = _CHOSEN if chosen else _FRONT if candidate.name in receipt.pareto else ""
    style = "bold" if chosen else "dim" if candidate.role == "control" else ""
    time = candidate.latency_ms
    quality = f"{score(receipt, candidate.quality.value)} {score_span(receipt, candidate.quality)}"
    cells = [
        mark,
        candidate.name,
        kilobytes(ours),
        ratio(theirs / ours),
        "–" if time is None else ratio(time.ratio_to_baseline.value),
        quality.replace(" %", ""),
        *_drop_cells(receipt, candidate),
    ]
    texts = [Text(cell, style=style) for cell in cells]
    if candidate.drop is not None:
        texts[-1].stylize(_VERDICT_STYLE[candidate.drop.verdict])
    return texts


def _drop_cells(receipt: Receipt, candidate: Candidate) -> tuple[str, str]:
    drop = candidate.drop
    if drop is None:
        return ("", "") if candidate.role == "baseline" else (NOT_MEASURED, "")
    number = drop_number(drop.value, drop, receipt.tolerance)
    return f"{number} {drop_span(drop, receipt.tolerance)}", drop.verdict


def layer_table(candidate: Candidate, baseline: Candidate) -> Table:
    """One row a layer: its shape before and after, what is left of its weights, bits and bytes."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, title_justify="left")
    table.title = Text(f"{candidate.name}: {byte_size(candidate.artifact.bytes)}", style="bold")
    table.add_column("layer", overflow="fold", max_width=26)
    table.add_column("kind", overflow="fold", max_width=14)
    table.add_column("weight", overflow="fold")
    for head in ("parameters", "zeros", "bits", "kB", "smaller"):
        table.add_column(head, justify="right", no_wrap=True)
    for pair in pair_layers(candidate, baseline):
        table.add_row(*(Text(cell) for cell in _layer_cells(pair)))
    return table


def _layer_cells(pair: Pair) -> list[str]:
    before, now = pair.before, pair.now
    if now is None:
        assert before is not None
        return [pair.name, before.kind, f"{shape_words(before.weight_shape)} → gone", "", "", "", "", ""]
    return [
        pair.name,
        now.kind,
        shape_change(pair),
        count(now.parameters),
        percent(sparsity(now.parameters, now.nonzero_parameters)),
        str(now.bits),
        kilobytes(now.bytes),
        "new" if before is None else ratio(before.bytes / now.bytes) if now.bytes else f"0{TIMES}",
    ]


def shape_change(pair: Pair) -> str:
    """The weight's shape, or 'before → after' where it changed."""
    before, now = pair.before, pair.now
    after = "gone" if now is None else shape_words(now.weight_shape)
    if before is None or (now is not None and before.weight_shape == now.weight_shape):
        return after
    return f"{shape_words(before.weight_shape)} → {after}"


def findings_text(receipt: Receipt) -> Text:
    """What was chosen, then every finding in plain words, equal ones told once with all they hold for."""
    text = Text()
    text.append(f"{receipt.chosen}: {saving(receipt, receipt.candidate(receipt.chosen))}.\n", style="bold")
    for group in grouped_findings(receipt):
        text.append(f"\n{group.severity} ", style="yellow" if group.severity == "warning" else "cyan")
        text.append(f"{group.code}  {group.text}")
        if group.layers:
            text.append(f"\n    layers: {', '.join(group.layers)}", style="dim")
        if group.candidates:
            text.append(f"\n    in: {', '.join(group.candidates)}", style="dim")
    return text
