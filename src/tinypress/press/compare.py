"""The standard comparison: each technique alone, combinations, and a control beside every claim."""

from __future__ import annotations

from pathlib import Path

from tinypress.press.engine import Engine
from tinypress.press.pipeline import press
from tinypress.press.recipe import Recipe
from tinypress.press.step import Distill, Magnitude, Quantize, Recover, Shrink, Student
from tinypress.receipt import Receipt
from tinypress.task import Task
from tinypress.train.loop import Progress, silent

BASELINE = Recipe(name="fp32", role="baseline", about="the trained network as it is")


def standard_recipes(
    task: Task, *, sparsity: float = 0.8, deep: float = 0.9, ratio: float = 0.5
) -> tuple[Recipe, ...]:
    """Recipes for ``task``; what needs training is left out where the task has no train data or loss.

    Args:
        sparsity: of ``prune``; ``deep`` is that of the ``prune-deep+int8`` combination, meant for the archive.
        ratio: share of the neurons that ``shrink`` removes.
    """
    trains = task.train is not None and task.loss is not None
    builds = trains and task.build is not None
    int8 = Quantize()
    recover = (Recover(),) if trains else ()
    recipes = [
        BASELINE,
        Recipe(
            name="prune",
            about=f"{sparsity:.0%} of the weights zeroed by magnitude" + (", recovered" if trains else ""),
            steps=(Magnitude(sparsity=sparsity), *recover),
            ship=("onnx", "archive"),
        ),
        Recipe(name="int8", about="8-bit weights and activations", steps=(int8,)),
        Recipe(
            name="shrink",
            about=f"{ratio:.0%} of the neurons removed" + (", recovered" if trains else ""),
            steps=(Shrink(ratio=ratio), *recover),
        ),
        Recipe(
            name="prune+int8",
            about=f"{deep:.0%} zeros" + (", recovered" if trains else "") + ", then 8 bits",
            steps=(Magnitude(sparsity=deep), *recover, int8),
            ship=("onnx", "archive"),
        ),
        Recipe(
            name="prune-random",
            role="control",
            control_of="prune",
            about="the same zeros at random places" + (", recovered" if trains else ""),
            steps=(Magnitude(sparsity=sparsity, score="random"), *recover),
        ),
    ]
    if trains:
        recipes += [
            Recipe(
                name="shrink+distill+int8",
                about=f"{ratio:.0%} of the neurons removed, taught by the original, then 8 bits",
                steps=(Shrink(ratio=ratio), Distill(), int8),
            ),
            Recipe(
                name="more-training",
                role="control",
                about="the recovery's training without any compression",
                steps=(Recover(),),
            ),
            Recipe(
                name="shrink-random",
                role="control",
                control_of="shrink",
                about="random neurons removed, recovered",
                steps=(Shrink(ratio=ratio, importance="random"), Recover()),
            ),
        ]
    if builds:
        recipes += [
            Recipe(
                name="distill",
                about=f"a fresh network {ratio:.0%} narrower, taught by the original",
                steps=(Student(ratio=ratio), Distill()),
            ),
            Recipe(
                name="small-dense",
                role="control",
                control_of="distill",
                about="that narrower network trained from scratch, without a teacher",
                steps=(Student(ratio=ratio), Recover()),
            ),
            Recipe(
                name="small-dense+int8",
                role="control",
                control_of="shrink+distill+int8",
                about="that narrower network trained from scratch, then 8 bits",
                steps=(Student(ratio=ratio), Recover(), int8),
            ),
        ]
    order = {"baseline": 0, "candidate": 1, "control": 2}
    return tuple(sorted(recipes, key=lambda recipe: order[recipe.role]))


def compare_compression_techniques(
    task: Task,
    out: Path,
    *,
    engine: Engine | None = None,
    seed: int = 0,
    threads: int = 1,
    latency_threads: int = 1,
    tolerance: float | None = None,
    max_bytes: int | None = None,
    fresh: bool = False,
    progress: Progress = silent,
) -> Receipt:
    """Press ``task`` by every standard recipe that fits it and return the receipt.

    What is left out is said in the receipt's findings; see ``press`` for the arguments.
    """
    return press(
        task,
        standard_recipes(task),
        out,
        engine=engine,
        seed=seed,
        threads=threads,
        latency_threads=latency_threads,
        tolerance=tolerance,
        max_bytes=max_bytes,
        fresh=fresh,
        skip_inapplicable=True,
        progress=progress,
    )
