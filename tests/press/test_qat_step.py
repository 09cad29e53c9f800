"""The step 'qat': without labels it needs no loss, and its bits may come by layer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from press.small import small_task
from tinypress.distill import CosineLoss, InfoNCE
from tinypress.errors import RecipeError, TaskError
from tinypress.facts import Compressed
from tinypress.press.bench import Bench
from tinypress.press.engine import Engine
from tinypress.press.recipe import Recipe, parse_recipes
from tinypress.press.step import Qat
from tinypress.press.steps import apply_step, check_task

TASK = small_task()


def test_bits_by_layer_are_a_table() -> None:
    given = {"technique": "qat", "layers": {"head": 4, "first": 8}}
    step = parse_recipes("here", {"recipes": [{"name": "a", "steps": [given]}]}).recipes[0].steps[0]
    assert isinstance(step, Qat)
    assert step.layers == (("head", 4), ("first", 8))
    assert hash(step) == hash(Qat(layers=step.layers))
    dumped = step.model_dump(mode="json")
    assert dumped["layers"] == {"first": 8, "head": 4}
    assert Qat(**dumped) == step
    with pytest.raises(RecipeError, match="layers"):
        Qat(layers={"head": 9})


def test_labels_and_loss_are_needed_only_where_they_are_looked_at() -> None:
    bare = Bench(replace(TASK, loss=None), Engine(), seed=0)
    with pytest.raises(TaskError, match="'qat' trains, and the task gives no loss"):
        check_task(bare, Recipe(name="a", steps=(Qat(),)))
    with pytest.raises(TaskError, match="'qat' trains, and the task gives no loss"):
        check_task(bare, Recipe(name="a", steps=(Qat(distill=True, alpha=0.5),)))
    step = Qat(distill=True, bits=3, weights_only=True, epochs=1)
    check_task(bare, Recipe(name="a", steps=(step,)))
    with pytest.raises(TaskError, match="no train data"):
        check_task(Bench(replace(TASK, train=None), Engine(), seed=0), Recipe(name="a", steps=(step,)))
    assert TASK.train is not None
    nonsense = replace(TASK.train, targets=torch.full_like(TASK.train.targets, 99))
    found = apply_step(
        step,
        Compressed(TASK.model),
        Bench(replace(TASK, loss=None, train=nonsense), Engine(), seed=0),
        from_scratch=False,
    )
    assert found.plan is not None
    assert {weight.bits for weight in found.plan.weights.values()} == {3}


def test_embeddings_are_taught_by_direction_and_at_the_rate_asked_for() -> None:
    bench = Bench(replace(TASK, loss=None), Engine(), seed=0)
    start = Compressed(TASK.model)

    def after(**settings: object) -> torch.Tensor:
        step = Qat(distill=True, bits=3, weights_only=True, epochs=6, **settings)
        made = apply_step(step, start, bench, from_scratch=False)
        with torch.no_grad():
            return made.model(*TASK.validation.inputs)

    with torch.no_grad():
        teacher = TASK.model(*TASK.validation.inputs)

    def loss(outputs: torch.Tensor) -> float:
        return float(CosineLoss()(outputs, teacher) + 0.1 * InfoNCE(0.05)(outputs, teacher))

    taught = after(loss="embeddings", learning_rate=3e-3)
    assert loss(taught) < loss(after(learning_rate=1e-9))  # as it was rounded
    assert not torch.equal(taught, after(learning_rate=3e-3))  # where the numbers themselves are matched
    for wrong in ({"distill": False}, {"distill": True, "alpha": 0.5}):
        with pytest.raises(RecipeError, match='loss = "embeddings" needs distill'):
            Qat(loss="embeddings", **wrong)
