"""One side of ``tito run``, as a process of its own: press the watch network with one engine.

``python -m tinypress_course.run.side OUT (reference | mine FOLDER) [--fresh] [--controls]`` writes a line of JSON to
standard output for each step forward, and ends with ``{"left_out": {technique: why}}``. Where a learner's function
stops the press, the recipes that need it are left out, with the reason, and the rest is pressed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch

from tinypress import Engine, Recipe, Task, find_task, press, standard_recipes
from tinypress_course.export import load_package

TECHNIQUE = {"score": "magnitude", "quantize": "quantize", "loss": "distill", "shrink": "shrink"}


class Progress(Protocol):
    """Hears of each step forward."""

    def __call__(self, what: str, done: int, total: int) -> None: ...


def press_mine(
    task: Task, recipes: Sequence[Recipe], out: Path, engine: Engine, progress: Progress, *, fresh: bool
) -> dict[str, str]:
    """Press with a learner's engine; what had to be left out: each technique, and what its function did wrong."""
    left_out: dict[str, str] = {}
    while True:
        last: list[str] = []
        fitting = [recipe for recipe in recipes if not _techniques(recipe) & left_out.keys()]
        try:
            press(task, fitting, out, engine=_watched(engine, last), fresh=fresh, progress=progress)
        except Exception as error:  # whatever a learner's function raises, or breaks
            if not last or TECHNIQUE[last[-1]] in left_out:
                raise
            left_out[TECHNIQUE[last[-1]]] = f"{type(error).__name__}: {error}"
            fresh = True
        else:
            return left_out


def _techniques(recipe: Recipe) -> set[str]:
    return {step.technique for step in recipe.steps}


def _watched(engine: Engine, last: list[str]) -> Engine:
    """``engine`` that notes which of its functions was called last."""

    def noting(part: str) -> Any:
        function = getattr(engine, part)

        def call(*args: Any, **kwargs: Any) -> Any:
            last.append(part)
            return function(*args, **kwargs)

        return call

    return replace(engine, **{part: noting(part) for part in TECHNIQUE})


def recipes_for(task: Task, *, controls: bool) -> list[Recipe]:
    """The standard recipes; the controls, which hardly use the functions that are compared, only where asked for."""
    return [recipe for recipe in standard_recipes(task) if controls or recipe.role != "control"]


def main(arguments: Sequence[str]) -> None:
    """Press one side and tell of it in lines of JSON."""
    out, side, *rest = [each for each in arguments if not each.startswith("--")]
    fresh = "--fresh" in arguments

    def tell(what: str, done: int, total: int) -> None:
        if what.split()[0] in ("pressing", "measuring", "sealing"):
            print(json.dumps({"what": what, "done": done, "total": total}), flush=True)

    torch.set_num_threads(1)
    task = find_task("watch")
    left_out: dict[str, str] = {}
    if side == "reference":
        recipes = recipes_for(task, controls="--controls" in arguments)
        press(task, recipes, Path(out), fresh=fresh, progress=tell)
    else:
        engine = load_package(Path(rest[0])).engine
        left_out = press_mine(task, recipes_for(task, controls=False), Path(out), engine, tell, fresh=fresh)
    print(json.dumps({"left_out": left_out}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
