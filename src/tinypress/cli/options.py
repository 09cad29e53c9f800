"""Options that several commands share, and the progress bars."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tinypress.errors import InputError
from tinypress.train import loop

TaskSpec = Annotated[
    str,
    typer.Argument(
        help="A built-in task, task.py, task.py:attribute, module:attribute, or a Hugging Face folder."
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="Where TASK is a Hugging Face folder: the Python file whose task(model, tokenizer) brings the data.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="Folder of the run \\[default: in runs, by the names of task and recipe]."),
]
Seed = Annotated[int, typer.Option(help="Seed of training, calibration and resampling.", min=0)]
Seeds = Annotated[
    int | None,
    typer.Option(
        help="Repeat everything with so many seeds, from the first on; the summary has means, spreads and intervals.",
        min=2,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(help="Threads of training \\[default: 1]; results depend on it to the last bit.", min=1),
]
LatencyThreads = Annotated[int, typer.Option(help="Threads of the runtime while latency is measured.", min=1)]
Device = Annotated[
    str,
    typer.Option(
        help="Where torch trains: cpu, or cuda where there is a GPU. All is measured on the processor."
    ),
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        help="Acceptable loss in quality: points, or the metric's unit \\[default: the task's].", min=0
    ),
]
MaxBytes = Annotated[
    int | None,
    typer.Option(
        help="What the chosen file may have at most, with all that ships beside it; without it integers that are "
        "slower than the float file of the same network are passed over.",
        min=1,
    ),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start over where the folder holds an earlier run.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else there.")]


def use_threads(threads: int | None) -> int:
    """Set PyTorch's threads and return their number."""
    count = threads if threads is not None else 1
    if count < 1:
        raise InputError(f"--threads {count}", "there must be at least one", "Give 1 or more")
    torch.set_num_threads(count)
    return count


@contextlib.contextmanager
def watched() -> Iterator[loop.Progress]:
    """Progress bars on standard error with the time left: one for the whole run, one for the work in hand."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<34}"),
        BarColumn(bar_width=28),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        rows: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            outer = what.split()[0] in _OUTER
            kind = "run" if outer else "work"
            if kind not in rows:
                rows[kind] = bars.add_task(what, total=total)
            if not outer and done <= 1:
                bars.reset(rows[kind], total=total)
            bars.update(rows[kind], description=what, completed=done, total=total)

        yield show


_OUTER = frozenset({"pressing", "measuring", "sealing", "verifying", "verified", "trying"})
