"""The diagnosis of a candidate as one HTML file that opens without a network: story, pictures, tables, recipe."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from tinypress.diagnosis import Diagnosis, Trial
from tinypress.files import write_bytes
from tinypress.report import words
from tinypress.report.svg import SENTINELS, inline_svg
from tinypress.report.templates import templates

_ROW = 26.0
_FONT = 12.0


def write_diagnosis_page(diagnosis: Diagnosis, path: Path) -> None:
    """Write the page of ``diagnosis`` to ``path``.

    Raises:
        RunError: the file cannot be written.
    """
    write_bytes(path, render_diagnosis_page(diagnosis).encode())


def render_diagnosis_page(diagnosis: Diagnosis) -> str:
    """The page of ``diagnosis`` as HTML text."""
    environment = templates()
    after = {layer.layer: layer for layer in diagnosis.layers_after}
    return environment.get_template("diagnosis.html").render(
        d=diagnosis,
        words=words,
        unit=" points" if diagnosis.tolerance.unit == "points" else "",
        after=after,
        spared={loss.layer: loss for loss in diagnosis.layer_losses},
        layers_picture=_twice(
            _layers, diagnosis, "s", "signal-to-noise ratio of each layer, before and after"
        ),
        trials_picture=_twice(_ladder, diagnosis, "t", "loss on validation with each remedy that was tried"),
        recipe=json.dumps({"steps": diagnosis.steps}, indent=1),
    )


def _twice(
    draw: Callable[[Diagnosis, int], Figure | None], diagnosis: Diagnosis, prefix: str, label: str
) -> Markup | None:
    """The picture for wide windows and for phones; the style sheet shows one of them."""
    wide, narrow = draw(diagnosis, 1040), draw(diagnosis, 390)
    if wide is None or narrow is None:
        return None
    aloud = f"{label}; the numbers stand in the table below"
    pictures = inline_svg(wide, f"{prefix}w", aloud, {}), inline_svg(narrow, f"{prefix}n", aloud, {})
    return Markup('<div class="wide">{}</div><div class="narrow">{}</div>').format(*pictures)


def _layers(diagnosis: Diagnosis, width: int) -> Figure | None:
    """A row a layer: the ratio before (ring) and after (dot)."""
    layers = diagnosis.layers
    if not layers:
        return None
    after = {layer.layer: layer for layer in diagnosis.layers_after}
    figure, axes = _axes(len(layers), width, [layer.layer for layer in layers], "signal-to-noise ratio, dB")
    for row, layer in enumerate(layers):
        now = after.get(layer.layer)
        if now is not None:
            axes.plot([layer.snr_db, now.snr_db], [row, row], color=SENTINELS.line, linewidth=3, zorder=1)
            axes.plot([now.snr_db], [row], "o", color=SENTINELS.candidate, markersize=8, zorder=3)
        axes.plot(
            [layer.snr_db], [row], "o", markersize=8, markeredgewidth=1.8, zorder=2,
            markerfacecolor=SENTINELS.panel, markeredgecolor=SENTINELS.control,
        )  # fmt: skip
    return figure


def _ladder(diagnosis: Diagnosis, width: int) -> Figure | None:
    """A row a try: the loss on validation, the tolerance as a dotted line."""
    tried: Sequence[Trial] = [trial for trial in diagnosis.trials if trial.loss is not None]
    if not tried:
        return None
    names = ["as it was", *(trial.remedy for trial in tried)]
    unit = ", points" if diagnosis.tolerance.unit == "points" else ""
    figure, axes = _axes(len(names), width, names, f"loss on validation{unit}")
    axes.axvline(
        diagnosis.tolerance.value, color=SENTINELS.soft, linewidth=1, linestyle=(0, (2, 3)), zorder=1
    )
    losses = [diagnosis.before.validation_loss, *(trial.loss for trial in tried)]
    for row, loss in enumerate(losses):
        kept = row > 0 and tried[row - 1].kept
        colour = SENTINELS.candidate if kept else SENTINELS.control
        axes.plot(
            [loss], [row], "o", markersize=8, markeredgewidth=1.8, zorder=3,
            markerfacecolor=colour if kept else SENTINELS.panel, markeredgecolor=colour,
        )  # fmt: skip
    return figure


def _axes(rows: int, width: int, names: Sequence[str], label: str) -> tuple[Figure, Any]:
    height = rows * _ROW + 5 * _FONT
    longest = 44 if width > 600 else 20
    shown = [name if len(name) <= longest else f"{name[: longest - 1]}…" for name in names]
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    figure.patch.set_alpha(0.0)
    left = 0.58 * _FONT * max(len(name) for name in shown) + 2 * _FONT
    bottom = 4 * _FONT
    axes = figure.add_axes(
        (left / width, bottom / height, 1 - (left + 2 * _FONT) / width, 1 - (bottom + _FONT) / height)
    )
    axes.set_facecolor("none")
    axes.set_ylim(rows - 0.4, -0.6)
    axes.set_yticks(range(rows), shown, parse_math=False)
    axes.tick_params(which="both", length=0, labelsize=_FONT, labelcolor=SENTINELS.soft, pad=0.5 * _FONT)
    axes.grid(True, color=SENTINELS.line, linewidth=1)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(SENTINELS.line)
    axes.set_xlabel(label, fontsize=_FONT, color=SENTINELS.soft, parse_math=False)
    return figure, axes
