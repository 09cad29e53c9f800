"""Which of the standard recipes fit a network; what is left out is said in the receipt, with the reason."""

from __future__ import annotations

from collections.abc import Sequence

from tinypress.errors import ModelError
from tinypress.facts import Compressed
from tinypress.press.bench import Bench
from tinypress.press.engine import Engine
from tinypress.press.recipe import Recipe
from tinypress.press.rehearse import without_training
from tinypress.press.step import Step
from tinypress.press.steps import apply_step
from tinypress.receipt import Finding
from tinypress.task import Task


def applicable(
    task: Task, recipes: Sequence[Recipe], seed: int
) -> tuple[tuple[Recipe, ...], tuple[Finding, ...]]:
    """The ``recipes`` whose techniques work on the task's network, and a finding for what was left out and why.

    Each technique that does not train is tried alone on the network as it is. A control goes with the recipe that
    it controls.
    """
    bench = Bench(task, Engine(), seed)
    refused: dict[Step, ModelError] = {}
    for step in dict.fromkeys(without_training(step) for recipe in recipes for step in recipe.steps):
        if step is None:
            continue
        try:
            apply_step(step, Compressed(task.model), bench, from_scratch=False)
        except ModelError as error:
            refused[step] = error
    kept, reasons = [], dict[str, list[str]]()
    for recipe in recipes:
        why = next(
            (refused[key] for step in recipe.steps if (key := without_training(step)) in refused), None
        )
        if why is None:
            kept.append(recipe)
        else:
            reasons.setdefault(why.problem, []).append(recipe.name)
    names = {recipe.name for recipe in kept}
    orphans = [r.name for r in kept if r.control_of is not None and r.control_of not in names]
    if orphans:
        reasons["they control recipes that were left out"] = orphans
    findings = [
        Finding(
            code="TP403",
            severity="warning",
            layer=None,
            text=f"left out: {', '.join(gone)}, because {reason}",
        )
        for reason, gone in reasons.items()
    ]
    return tuple(r for r in kept if r.name not in orphans), (*_untrained(task), *findings)


def _untrained(task: Task) -> tuple[Finding, ...]:
    if task.train is None or task.loss is None:
        missing = "train data" if task.train is None else "loss"
        text = f"the task gives no {missing}: nothing was recovered or distilled, and nothing controls the training"
    elif task.build is None:
        text = "the task gives no build(): no fresh network was distilled, nor trained as a control"
    else:
        return ()
    return (Finding(code="TP402", severity="note", layer=None, text=text),)
