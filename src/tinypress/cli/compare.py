"""``tinypress demo`` and ``tinypress compare``: every technique, combinations and controls on one task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinypress.cli.found import task_of
from tinypress.cli.options import (
    AsJson,
    Data,
    Fresh,
    LatencyThreads,
    MaxBytes,
    Out,
    Seed,
    Seeds,
    TaskSpec,
    Threads,
    Tolerance,
    use_threads,
    watched,
)
from tinypress.cli.show import show_receipt, show_summary
from tinypress.press.compare import compare_compression_techniques, standard_recipes
from tinypress.press.seeds import press_with_seeds


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder of the run.")] = Path("runs/demo"),
    seed: Seed = 0,
    threads: Threads = None,
    fresh: Fresh = False,
    as_json: AsJson = False,
) -> int:
    """Press the built-in [bold]watch[/] network in every way and show the receipt."""
    return compare("watch", None, out, seed, threads, 1, None, None, fresh, None, as_json)


def compare(
    task: TaskSpec,
    data: Data = None,
    out: Out = None,
    seed: Seed = 0,
    threads: Threads = None,
    latency_threads: LatencyThreads = 1,
    tolerance: Tolerance = None,
    max_bytes: MaxBytes = None,
    fresh: Fresh = False,
    seeds: Seeds = None,
    as_json: AsJson = False,
) -> int:
    """Compare each technique, combinations and controls on TASK; a run that was stopped goes on."""
    count = use_threads(threads)
    with watched() as progress:
        found = task_of(task, data, seed, progress)
        folder = (
            out
            if out is not None
            else Path("runs") / (found.name if seeds is None else f"{found.name}-seeds")
        )
        if seeds is not None:
            summary = press_with_seeds(
                found,
                standard_recipes(found),
                folder,
                seeds=seeds,
                seed=seed,
                threads=count,
                latency_threads=latency_threads,
                tolerance=tolerance,
                max_bytes=max_bytes,
                fresh=fresh,
                skip_inapplicable=True,
                progress=progress,
            )
            return show_summary(summary, folder, as_json, task, data)
        receipt = compare_compression_techniques(
            found,
            folder,
            seed=seed,
            threads=count,
            latency_threads=latency_threads,
            tolerance=tolerance,
            max_bytes=max_bytes,
            fresh=fresh,
            progress=progress,
        )
    show_receipt(receipt, folder, as_json, task, data)
    return 0
