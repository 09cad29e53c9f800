"""Finds out before any training whether the steps after it can be carried out on this network at all.

Whether a layer can leave, a width can go or a name is known does not depend on how the weights were trained. So the
steps of a recipe that do not train are tried one after the other, cheaply, and refuse before hours have passed.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinypress.facts import Compressed
from tinypress.press.bench import Bench
from tinypress.press.composition import contract_of
from tinypress.press.recipe import Recipe
from tinypress.press.step import (
    Factorize,
    Layers,
    Magnitude,
    Qat,
    Quantize,
    Shrink,
    Step,
    Structured,
    Student,
)
from tinypress.press.steps import apply_step


def rehearse(bench: Bench, recipes: Sequence[Recipe]) -> None:
    """Try the steps of ``recipes`` that come after a training, with those before them and without the training.

    Raises:
        InputError, ModelError: what the step would have raised after the training.
    """
    tried: set[tuple[Step, ...]] = set()
    for number, recipe in enumerate(recipes):
        steps = _worth_trying(recipe.steps)
        if steps and steps not in tried:
            bench.progress(f"trying the steps of {recipe.name}", number, len(recipes))
            state = Compressed(bench.task.model)
            for step in steps:
                state = apply_step(step, state, bench, from_scratch=False)
        tried.add(steps)


def _worth_trying(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The steps to try up to the last of those that come after a training; none where no training comes first."""
    kept: list[Step] = []
    last, trained = 0, False
    for step in steps:
        cheap = without_training(step)
        if cheap is not None:
            kept.append(cheap)
            last = len(kept) if trained else last
        trained = trained or contract_of(step).trains
    return tuple(kept[:last])


def without_training(step: Step) -> Step | None:
    """The step in its cheapest form, which fails where it does; None for one that does nothing but train."""
    match step:
        case Magnitude():
            return step.model_copy(update={"score": "magnitude"})
        case Shrink():
            return step.model_copy(update={"importance": "l1"})
        case Qat():  # which layers it finds does not depend on the training
            return Quantize(
                weights_only=True,
                bits=step.bits,
                scheme=step.scheme,
                group_size=step.group_size,
                embeddings=step.embeddings,
                keep=step.keep,
            )
        case Quantize():
            return step.model_copy(update={"calibration_samples": 8})
        case Structured():
            cheap = {"rounds": 1, "importance": "l1", "search": False}
            # a clock is not needed to see whether anything can be cut
            other = {"latency_ms": None, "ratio": 0.1} if step.latency_ms is not None else {}
            untimed = {"per": None} if step.per == "latency_ms" else {}
            return step.model_copy(update=cheap | other | untimed)
        case Student() | Factorize() | Layers():
            return step
        case _:
            return None
