"""The application: a byte budget that was not known before, met by the learner's pipeline with the learner's engine.

``design_pipeline`` is asked for a recipe, the recipe is carried out by the toolkit with the learner's four techniques,
and the file that comes out is measured.
"""

from __future__ import annotations

import random
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from tinypress import Receipt, Recipe, Task, TinypressError, press
from tinypress_course.grade.child import Jail, JailBroken, Lost
from tinypress_course.grade.engine import PARTS, Ask, Refused, asked, engine_of
from tinypress_course.grade.result import Applied
from tinypress_course.grade.rubric import Application, Rubric
from tinypress_course.grade.work import Work

BASELINE = Recipe(name="fp32", role="baseline")
DESIGN = "design_pipeline"


class Progress(Protocol):
    """Told how far the press is: ``done`` of ``total`` steps of ``what``."""

    def __call__(self, what: str, done: int, total: int) -> None: ...


@dataclass(frozen=True)
class Budget:
    """What the whole class is asked for: ``most_bytes`` instead of the float file's."""

    most_bytes: int
    float_bytes: int


def draw_budget(task: Task, rubric: Application, seed: int) -> Budget:
    """A share of the float file's bytes, which are measured."""
    with tempfile.TemporaryDirectory() as out:
        receipt = press(task, [BASELINE], Path(out), fresh=True)
    whole = receipt.baseline.artifact.bytes
    share = random.Random(seed).choice(rubric.budget_shares)
    return Budget(int(share * whole), whole)


def apply(
    work: Work,
    passed: frozenset[str],
    budget: Budget,
    task: Task,
    rubric: Rubric,
    jail: Jail,
    out: Path,
    progress: Progress,
) -> Applied:
    """Press ``task`` as the learner would; of functions that are not in ``passed`` the toolkit's own stands in."""
    stood_in = tuple(function for function in PARTS.values() if function not in passed)
    nothing = partial(Applied, budget_bytes=budget.most_bytes, stood_in=stood_in)
    until = time.monotonic() + rubric.limits.application_seconds
    try:
        with jail.session(work.pieces, until) as session:
            recipe = designed(session.call, budget, rubric.application)
            engine = engine_of(session.call, passed, "learner")
            receipt = press(task, [BASELINE, recipe], out, engine=engine, fresh=True, progress=progress)
    except (Lost, JailBroken) as lost:
        return nothing(notes=(f"the process of the learner's functions {lost}",))
    except Exception as error:  # whatever an answer can bring about in the press
        return nothing(notes=(_why(error),))
    return _graded(receipt, budget, task, rubric.application, stood_in)


def designed(ask: Ask, budget: Budget, rubric: Application) -> Recipe:
    """The learner's recipe, checked.

    Raises:
        Refused: there is none, or it asks for more than the rubric allows.
    """
    answer = asked(ask, DESIGN, {"budget_bytes": budget.most_bytes, "float_bytes": budget.float_bytes})
    given: Any = answer.get("recipe")
    if not isinstance(given, dict) or not isinstance(given.get("steps"), list):
        raise Refused(f"{DESIGN} gave no recipe")
    try:
        recipe = Recipe(
            name="pipeline", steps=tuple(given["steps"]), ship=tuple(given.get("ship") or ("onnx",))
        )
    except (TinypressError, TypeError) as error:
        raise Refused(f"{DESIGN} gave a recipe that cannot be carried out: {error}") from error
    epochs = [getattr(step, "epochs", None) or 0 for step in recipe.steps]
    samples = [getattr(step, "calibration_samples", 0) for step in recipe.steps]
    if len(recipe.steps) > rubric.most_steps or max(epochs, default=0) > rubric.most_epochs:
        raise Refused(
            f"{DESIGN} asks for more than {rubric.most_steps} steps, or more than {rubric.most_epochs} epochs in one"
        )
    if max(samples, default=0) > 4096:
        raise Refused(f"{DESIGN} asks for more than 4096 calibration samples")
    return recipe


def _graded(
    receipt: Receipt, budget: Budget, task: Task, rubric: Application, stood_in: tuple[str, ...]
) -> Applied:
    """The points of the smallest file that the recipe ships."""
    files = [candidate for candidate in receipt.candidates if candidate.role != "baseline"]
    file = min(files, key=lambda each: each.artifact.bytes)
    lost = 100 * (receipt.baseline.validation.value - file.validation.value)
    fits = file.artifact.bytes <= budget.most_bytes
    whole = (
        rubric.fits + rubric.quality * kept_share(lost, task.tolerance, rubric.worthless_loss)
        if fits
        else 0.0
    )
    left = 1 - sum(rubric.parts.get(function, 0.0) for function in stood_in)
    return Applied(
        points=whole * max(0.0, left),
        budget_bytes=budget.most_bytes,
        file_bytes=file.artifact.bytes,
        points_lost=lost,
        stood_in=stood_in,
        notes=() if fits else ("the file does not fit the budget, so its quality does not count",),
    )


def kept_share(lost: float, tolerance: float, worthless: float) -> float:
    """1 for a loss within the tolerance, 0 from ``worthless`` on, and evenly less in between."""
    if lost <= tolerance:
        return 1.0
    return max(0.0, (worthless - lost) / (worthless - tolerance)) if worthless > tolerance else 0.0


def _why(error: Exception) -> str:
    """What stopped the press; a refusal is often wrapped in the toolkit's own error."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, Refused | Lost):
            return f"the pipeline stopped: {'its process ' if isinstance(inner, Lost) else ''}{inner}"
        inner = inner.__cause__
    return f"the pipeline stopped: {str(error)[:300] or type(error).__name__}"
