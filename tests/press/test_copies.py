"""``copies`` in the steps that train: varied samples of the task, refused before any work where it has none."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from press.small import small_task
from tinypress.errors import RecipeError, TaskError
from tinypress.facts import Compressed
from tinypress.press.bench import Bench
from tinypress.press.engine import Engine
from tinypress.press.recipe import Recipe
from tinypress.press.step import Distill, Gradual, Qat, Recover
from tinypress.press.steps import apply_step, check_task

TASK = small_task()
SEEN: list[Tensor] = []


def noisy(inputs: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, ...]:
    SEEN.append(inputs[0])
    return (inputs[0] + 0.1 * torch.randn(inputs[0].shape, generator=generator),)


VARIED = Bench(replace(TASK, augment=noisy), Engine(), seed=3)
STEPS = (
    Recover(epochs=1, copies=3),
    Distill(epochs=1, copies=3),
    Gradual(sparsity=0.5, epochs=1, copies=3),
    Qat(epochs=1, copies=3),
)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.technique)
def test_an_epoch_has_so_many_times_the_samples(step: Recover | Distill | Gradual | Qat) -> None:
    SEEN.clear()
    made = apply_step(step, Compressed(TASK.model), VARIED, from_scratch=False)
    assert TASK.train is not None
    taken = next(change.now for change in made.changes if change.what.endswith("steps"))
    assert taken == math.ceil(3 * len(TASK.train) / TASK.training.batch_size)
    assert [len(x) for x in SEEN] == 2 * [len(TASK.train)]


def test_the_copies_are_those_of_the_seed() -> None:
    step = STEPS[0]
    one, again, other = (
        apply_step(step, Compressed(TASK.model), bench, from_scratch=False).model.state_dict()
        for bench in (VARIED, VARIED, replace(VARIED, seed=4))
    )
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.technique)
def test_a_task_without_augment_is_refused(step: Recover | Distill | Gradual | Qat) -> None:
    with pytest.raises(TaskError, match=r"asks for 3 copies .*Add augment to the Task"):
        check_task(Bench(TASK, Engine(), seed=0), Recipe(name="a", steps=(step,)))


@pytest.mark.parametrize("copies", [0, -1, 1.5, True, "2"])
def test_copies_are_a_whole_number(copies: object) -> None:
    with pytest.raises(RecipeError, match="copies"):
        Recover(copies=copies)  # type: ignore[arg-type]
