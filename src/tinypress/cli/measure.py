"""``tinypress measure``: a network as it is, before anything is pressed."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from tinypress.cli.found import task_of
from tinypress.cli.options import (
    AsJson,
    Data,
    Fresh,
    LatencyThreads,
    Out,
    Seed,
    TaskSpec,
    Threads,
    use_threads,
    watched,
)
from tinypress.cli.show import show_receipt
from tinypress.press.compare import BASELINE
from tinypress.press.pipeline import press
from tinypress.report import layer_table


def measure(
    task: TaskSpec,
    data: Data = None,
    out: Out = None,
    seed: Seed = 0,
    threads: Threads = None,
    latency_threads: LatencyThreads = 1,
    fresh: Fresh = False,
    as_json: AsJson = False,
) -> int:
    """Ship TASK's network as float ONNX and measure that file: bytes, layers, MACs, time, memory, quality."""
    count = use_threads(threads)
    with watched() as progress:
        found = task_of(task, data, seed, progress)
        folder = out if out is not None else Path("runs") / f"{found.name}-measure"
        receipt = press(
            found,
            (BASELINE,),
            folder,
            seed=seed,
            threads=count,
            latency_threads=latency_threads,
            fresh=fresh,
            progress=progress,
        )
    if not as_json:
        Console().print(layer_table(receipt.baseline, receipt.baseline))
    show_receipt(receipt, folder, as_json, task, data)
    return 0
