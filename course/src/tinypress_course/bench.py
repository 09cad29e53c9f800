"""Press a network from inside the module and show what was measured on the files that were written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TimeRemainingColumn
from rich.table import Table

from tinypress import Engine, Receipt, Recipe, Task, find_task, press

RUNS = Path("runs")


def find_network(name: str) -> Task:
    """The built-in task called ``name``: a trained network with the data it is measured on.

    Every cell that measures needs it, so that none of them takes its time while functions are graded.

    Raises:
        RuntimeError: called while a notebook is being graded, where nothing is measured.
    """
    _refuse_while_graded()
    return find_task(name)


def press_and_show(
    task: Task, recipes: Sequence[Recipe], folder: str, *, engine: Engine | None = None
) -> Receipt:
    """Carry out ``recipes``, the baseline first, into ``runs/folder`` and print what was measured.

    Accuracy is that on validation: it is what choices are made on.

    Raises:
        RuntimeError: called while a notebook is being graded, where nothing is measured.
    """
    _refuse_while_graded()
    everything = [Recipe(name="fp32", role="baseline"), *recipes]
    with Progress(*Progress.get_default_columns()[:-1], TimeRemainingColumn(), transient=True) as bar:
        rows = {"": bar.add_task(folder, total=None)}

        def tell(what: str, done: int, total: int) -> None:
            bar.update(rows[""], description=what, completed=done, total=total)

        receipt = press(task, everything, RUNS / folder, engine=engine, fresh=True, progress=tell)
    show(receipt)
    return receipt


def show(receipt: Receipt) -> None:
    """Print what was measured on each file."""
    Console(width=96).print(table_of(receipt))


def _refuse_while_graded() -> None:
    if os.environ.get("NBGRADER_EXECUTION"):
        raise RuntimeError("measurements are not taken while a notebook is graded")


def table_of(receipt: Receipt) -> Table:
    """One row for each file: kB, times smaller, time against the float network's, accuracy on validation."""
    table = Table(title=f"{receipt.task}: measured on the files", title_justify="left")
    for name in ("file", "kB", "smaller", "time", "accuracy %"):
        table.add_column(name, justify="left" if name == "file" else "right")
    whole = receipt.candidates[0].artifact.bytes
    for each in receipt.candidates:
        ratio = each.latency_ms.ratio_to_baseline if each.latency_ms else None
        table.add_row(
            each.name,
            f"{each.artifact.bytes / 1000:.1f}",
            f"{whole / each.artifact.bytes:.2f}x",
            "" if ratio is None else f"{ratio.value:.2f}x",
            f"{100 * each.validation.value:.1f}",
        )
    return table


def bytes_of(receipt: Receipt, name: str) -> int:
    """Bytes of one file on disk."""
    return receipt.candidate(name).artifact.bytes


def accuracy_of(receipt: Receipt, name: str) -> float:
    """Accuracy on validation of one file, 0..100, in the runtime that runs it."""
    return 100 * receipt.candidate(name).validation.value


def time_of(receipt: Receipt, name: str) -> float:
    """Time of one forward pass against that of the float file, measured turn by turn; 0 where it was not measured."""
    latency = receipt.candidate(name).latency_ms
    return latency.ratio_to_baseline.value if latency and latency.ratio_to_baseline else 0.0
