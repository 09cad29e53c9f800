"""``tinypress compositions``: in what order techniques go on a network, tried out pair by pair."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tinypress.cli.options import AsJson, Fresh, Out, Seed, TaskSpec, Threads, use_threads, watched
from tinypress.files import write_bytes
from tinypress.press.composed import Compositions
from tinypress.press.compositions import try_compositions
from tinypress.press.recipe import read_recipes
from tinypress.press.step import Step
from tinypress.report.compositions import compositions_page, draw_compositions, gain_text, reasons
from tinypress.tasks.find import find_task


def compositions(
    task: TaskSpec,
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe",
            help="A recipe file whose steps are tried in pairs \\[default: one step of each technique].",
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of each training \\[default: the task's].", min=1)
    ] = None,
    out: Out = None,
    seed: Seed = 0,
    threads: Threads = None,
    fresh: Fresh = False,
    as_json: AsJson = False,
) -> int:
    """Try every pair of techniques in both orders on TASK: what works, what cannot be and why, which order is better.

    With one step of each technique that is more than a hundred small runs: minutes for a small network. A run that was
    stopped goes on with the same command. The picture and the page are written into the run's folder.
    """
    count = use_threads(threads)
    steps = None if recipe is None else _steps_of(recipe)
    with watched() as progress:
        found = find_task(task, seed, progress)
        folder = out if out is not None else Path("runs") / f"{found.name}-compositions"
        result = try_compositions(
            found,
            folder,
            steps=steps,
            epochs=epochs,
            seed=seed,
            threads=count,
            fresh=fresh,
            progress=progress,
        )
    draw_compositions(result, folder / "composition.png")
    write_bytes(folder / "composition.md", compositions_page(result, "composition.png").encode())
    if as_json:
        print(result.model_dump_json(indent=1))
        return 0
    console = Console()
    if not console.is_terminal:
        console = Console(width=100)
    console.print(_refused(result))
    console.print(_orders(result))
    console.print(
        f"\nThe page is {folder / 'composition.md'}, the picture composition.png beside it", soft_wrap=True
    )
    return 0


def _steps_of(recipe: Path) -> tuple[Step, ...]:
    """The steps of all recipes in the file, each once."""
    return tuple(dict.fromkeys(step for each in read_recipes(recipe).recipes for step in each.steps))


def _refused(result: Compositions) -> Table:
    table = Table("pairs", "cannot be, because", title=f"{result.task}: what cannot be")
    for reason in reasons(result):
        which = [p for p in result.pairs if reason in (p.forbidden, p.impossible)]
        table.add_row(str(len(which)), reason.replace("[", r"\["))
    return table


def _orders(result: Compositions) -> Table:
    table = Table("first", "then", "gain over the other order", "test says", title="Which order is better")
    for order in result.orders:
        table.add_row(order.first, order.second, gain_text(order.gain).replace("[", r"\["), order.settled)
    return table
