"""``tinypress latency-table``: what each layer of a network takes on this machine, at several widths."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tinypress.cli.found import task_of
from tinypress.cli.options import AsJson, Data, LatencyThreads, Seed, TaskSpec, use_threads, watched
from tinypress.measure.latency_table import LatencyTable, between, preferred_multiple, write_latency_table
from tinypress.measure.layer_latency import measure_layers


def latency_table(
    task: TaskSpec,
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="File \\[default: runs/TASK-latency.json].")
    ] = None,
    seed: Seed = 0,
    latency_threads: LatencyThreads = 1,
    seconds: Annotated[
        float, typer.Option(help="How long the widths of one layer take turns.", min=0.01)
    ] = 1.0,
    as_json: AsJson = False,
) -> int:
    """Time every layer of a task's network in ONNX Runtime at several widths, and see which widths its kernels like."""
    use_threads(None)
    with watched() as progress:
        found = task_of(task, data, seed, progress)
        table = measure_layers(
            found.name,
            found.model,
            found.example_inputs,
            threads=latency_threads,
            seconds=seconds,
            watch=progress,
        )
    path = out if out is not None else Path("runs") / f"{found.name}-latency.json"
    write_latency_table(path, table)
    if as_json:
        print(table.model_dump_json(indent=1))
        return 0
    console = Console()
    if not console.is_terminal:
        console = Console(width=100)
    console.print(_shown(table))
    for finding in findings(table):
        console.print(f"• {finding}", highlight=False)
    console.print(f"\nThe table is {path}", soft_wrap=True)
    return 0


def _shown(table: LatencyTable) -> Table:
    shown = Table(title=f"{table.task} on {table.machine.cpu}, {table.machine.threads} thread(s), batch 1")
    for column in ("layer", "kind"):
        shown.add_column(column)
    for column in ("in x out", "ms", "half the outputs", "half of both"):
        shown.add_column(column, justify="right")
    for row in table.layers:
        full = between(row, row.inputs, row.outputs)
        thin = between(row, row.inputs, max(row.outputs // 2, 1))
        both = between(row, max(row.inputs // 2, 1), max(row.outputs // 2, 1))
        more = f" and {len(row.layers) - 1} more" if len(row.layers) > 1 else ""
        shown.add_row(
            f"{row.layers[0]}{more}", row.kind, f"{row.inputs} x {row.outputs}",
            f"{full:.4f}", f"{thin / full:.0%}", f"{both / full:.0%}",
        )  # fmt: skip
    shown.add_row("the whole network", "", "", f"{table.whole_ms:.4f}", "", "")
    shown.add_row("a call of nothing", "", "", f"{table.call_ms:.4f}", "", "")
    return shown


def findings(table: LatencyTable) -> list[str]:
    """What the timings say about widths, a sentence each."""
    said = []
    for each in table.multiples:
        where = f"{each.kind} ({each.layer}), {each.side}"
        if each.multiple == 1:
            said.append(f"{where}: time goes with the width; no multiple is liked better")
        else:
            said.append(
                f"{where}: multiples of {each.multiple} are liked; other widths take {each.loss:.0%} more than in "
                "proportion"
            )
    best = preferred_multiple(table)
    said.append(
        f"Prune with multiple={best}" if best > 1 else "Any width will do: prune_structured needs no multiple"
    )
    return said
