"""``tinypress press``: one's own recipe file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinypress.cli.found import task_of
from tinypress.cli.options import (
    AsJson,
    Data,
    Device,
    Fresh,
    LatencyThreads,
    MaxBytes,
    Out,
    Seeds,
    TaskSpec,
    Threads,
    Tolerance,
    use_threads,
    watched,
)
from tinypress.cli.show import show_receipt, show_summary
from tinypress.press.compare import BASELINE
from tinypress.press.pipeline import press as press_task
from tinypress.press.recipe import Recipe, RecipeFile, read_recipes
from tinypress.press.seeds import press_with_seeds
from tinypress.press.step import Quantize

_INT8 = Recipe(
    name="int8", about="8-bit weights and activations", steps=(Quantize(),), ship=("onnx", "archive")
)
_EXAMPLE = """
A recipe file in TOML:

    name = "small"
    ship = ["onnx"]
    [\\[steps]]
    technique = "shrink"
    ratio = 0.5
    [\\[steps]]
    technique = "distill"
    [\\[steps]]
    technique = "quantize"
"""


def press(
    task: TaskSpec,
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe",
            help="Recipe file, TOML or JSON (a run's recipe.json too) \\[default: 8 bits].",
        ),
    ] = None,
    data: Data = None,
    out: Out = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed \\[default: the recipe file's, else 0].", min=0)
    ] = None,
    threads: Threads = None,
    latency_threads: LatencyThreads = 1,
    device: Device = "cpu",
    tolerance: Tolerance = None,
    max_bytes: MaxBytes = None,
    fresh: Fresh = False,
    seeds: Seeds = None,
    as_json: AsJson = False,
) -> int:
    """Press TASK by the steps of a recipe file, by default to 8 bits; a baseline is added where the file has none."""
    file = read_recipes(recipe) if recipe is not None else RecipeFile(recipes=(_INT8,))
    seed = seed if seed is not None else file.seed if file.seed is not None else 0
    count = use_threads(threads if threads is not None else file.threads)
    recipes = file.recipes
    if all(one.role != "baseline" for one in recipes):
        recipes = (BASELINE, *recipes)
    with watched() as progress:
        found = task_of(task, data, seed, progress)
        done = _INT8.name if recipe is None else recipe.stem
        folder = out if out is not None else Path("runs") / f"{found.name}-{done}{'-seeds' if seeds else ''}"
        tolerance = tolerance if tolerance is not None else file.tolerance
        max_bytes = max_bytes if max_bytes is not None else file.max_bytes
        if seeds is not None:
            summary = press_with_seeds(
                found,
                recipes,
                folder,
                seeds=seeds,
                seed=seed,
                threads=count,
                latency_threads=latency_threads,
                device=device,
                tolerance=tolerance,
                max_bytes=max_bytes,
                fresh=fresh,
                progress=progress,
            )
            return show_summary(summary, folder, as_json, task, data)
        receipt = press_task(
            found,
            recipes,
            folder,
            seed=seed,
            threads=count,
            latency_threads=latency_threads,
            device=device,
            tolerance=tolerance,
            max_bytes=max_bytes,
            fresh=fresh,
            progress=progress,
        )
    show_receipt(receipt, folder, as_json, task, data)
    return 0


press.__doc__ = (press.__doc__ or "") + _EXAMPLE
