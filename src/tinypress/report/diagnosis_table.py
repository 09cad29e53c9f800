"""The diagnosis in a terminal: the story, what was tried, and what came of it."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from tinypress.diagnosis import Diagnosis
from tinypress.report.words import byte_size, drop_number, drop_span, figures, fixed, tolerance_words


def story_text(diagnosis: Diagnosis) -> Text:
    """The story, a line a sentence, under the cause."""
    head = f"The cause: {diagnosis.cause}" if diagnosis.cause else "Nothing to mend"
    if diagnosis.cause is None and not diagnosis.mended:
        head = "No cause found"
    text = Text(f"{diagnosis.candidate} of {diagnosis.task}. {head}\n", style="bold")
    for sentence in diagnosis.story:
        text.append(f"  {sentence}\n", style="not bold")
    return text


def trials_table(diagnosis: Diagnosis) -> Table:
    """One row a remedy, in the order in which they were tried."""
    points = diagnosis.tolerance.unit == "points"
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.title = Text("What was tried, each on top of what was kept", style="bold")
    table.title_justify = "left"
    table.caption = Text(f"tolerance {tolerance_words(diagnosis.tolerance, diagnosis.metric)}, on validation")
    table.caption_justify = "left"
    table.add_column("", width=1)
    table.add_column("remedy", overflow="fold")
    table.add_column("settings", overflow="fold")
    for head in ("loss, points" if points else "loss", "SNR, dB", "file"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_row(
        "",
        "as it was",
        "",
        _loss(diagnosis.before.validation_loss, points),
        "",
        byte_size(diagnosis.before.artifact.bytes),
    )
    for trial in diagnosis.trials:
        cells = ["▶" if trial.kept else "▷" if trial.left_out else "", trial.remedy, trial.changed]
        if trial.loss is None or trial.snr_db is None or trial.bytes is None:
            cells += ["refused", "", ""]
        else:
            cells += [_loss(trial.loss, points), fixed(trial.snr_db, 1), byte_size(trial.bytes)]
        table.add_row(*(Text(cell, style="bold" if trial.kept else "") for cell in cells))
    return table


def outcome_text(diagnosis: Diagnosis) -> Text:
    """Drop on test before and after."""
    text = Text()
    unit = " points" if diagnosis.tolerance.unit == "points" else ""
    for name, outcome in (("before", diagnosis.before), ("after", diagnosis.after)):
        if outcome is None:
            continue
        drop = outcome.drop
        number = drop_number(drop.value, drop, diagnosis.tolerance)
        text.append(
            f"{name}: drop on test {number}{unit} {drop_span(drop, diagnosis.tolerance)}, {drop.verdict}; "
            f"{byte_size(outcome.artifact.bytes)}\n"
        )
    return text


def _loss(value: float, points: bool) -> str:
    return fixed(value, 2) if points else figures(value)
