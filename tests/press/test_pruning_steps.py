"""The pruning settings of a recipe: checked before any work, carried out as they stand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from press.small import small_task
from tinypress.errors import InputError, RecipeError, TaskError
from tinypress.facts import Compressed
from tinypress.press.bench import Bench
from tinypress.press.engine import Engine
from tinypress.press.recipe import Recipe, check_order, step_from
from tinypress.press.step import Gradual, Magnitude, Student
from tinypress.press.steps import apply_step, check_task
from tinypress.prune import calculate_sparsity, erk_counts, prune_weights_by_magnitude
from tinypress.train.checkpoint import Checkpoint

TASK = small_task()


def theirs(layer: nn.Module, sparsity: float) -> Compressed:
    return prune_weights_by_magnitude(layer, sparsity)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sparsity": 0.6, "pattern": "2:4"}, "brings a sparsity of 0.5"),
        ({"sparsity": 0.5, "pattern": "two of four"}, "no such pattern"),
        ({"sparsity": 0.5, "pattern": "2:4", "score": "random"}, "another score"),
        ({"sparsity": 0.5, "allocation": "lamp", "score": "random"}, "another score"),
        ({"sparsity": 0.5, "pattern": "4x1", "allocation": "erk"}, "shared out"),
        ({"sparsity": 0.5, "allocation": "erq"}, "Did you mean 'erk'"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        step_from({"technique": "magnitude", **settings})
    with pytest.raises(RecipeError, match=words):
        Magnitude(**settings)


@pytest.mark.parametrize("settings", [{"end": 0.0}, {"every": 0}, {"sparsity": 1.1}, {"epochs": 0}])
def test_gradual_settings_out_of_range_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(RecipeError):
        step_from({"technique": "gradual", "sparsity": 0.5, **settings})


def test_a_task_that_cannot_train_and_an_engine_that_ranks_otherwise_are_refused_before_any_work() -> None:
    gradual = Recipe(name="a", steps=(Gradual(sparsity=0.5),))
    with pytest.raises(TaskError, match="'gradual' trains"):
        check_task(Bench(replace(TASK, train=None), Engine(), 0), gradual)
    pattern = Recipe(name="a", steps=(Magnitude(sparsity=0.5, pattern="2:4"),))
    check_task(Bench(TASK, Engine(), 0), pattern)
    with pytest.raises(InputError, match="another score"):
        check_task(Bench(TASK, Engine(score=theirs), 0), pattern)


def test_the_recipes_settings_reach_the_weights() -> None:
    done = apply_step(
        Magnitude(sparsity=0.5, pattern="2:4"),
        Compressed(TASK.model),
        Bench(TASK, Engine(), 0),
        from_scratch=False,
    )
    assert bool(((done.model.get_parameter("5.weight").view(-1, 4) != 0).sum(1) <= 2).all())
    assert [note.code for note in done.notes] == ["TP112"]  # the first layer sees two channels
    shapes = {
        name: tuple(TASK.model.get_parameter(name).shape) for name in ("0.weight", "5.weight", "7.weight")
    }
    for engine in (Engine(), Engine(score=theirs)):
        step = Magnitude(sparsity=0.7, allocation="erk")
        shared = apply_step(step, Compressed(TASK.model), Bench(TASK, engine, 0), from_scratch=False).model
        found = {name: int((shared.get_parameter(name) == 0).sum()) for name in shapes}
        assert found == erk_counts("test", shapes, 0.7)


def test_gradual_trains_a_student_and_keeps_a_checkpoint(tmp_path: Path) -> None:

    recipe = Recipe(name="a", steps=(Student(ratio=0.5), Gradual(sparsity=0.6)))
    check_order("test", recipe)
    bench = Bench(TASK, Engine(), 0, checkpoint=Checkpoint(tmp_path / "state"))
    student = apply_step(recipe.steps[0], Compressed(TASK.model), bench, from_scratch=True)
    done = apply_step(recipe.steps[1], student, bench, from_scratch=True)
    assert calculate_sparsity(done.model) == pytest.approx(0.6, abs=0.01)
    assert {c.layer for c in done.changes if c.what == "sparsity"} == {"0", "5", "7"}
    assert next(c.now for c in done.changes if c.what == "training steps") == 5 * 5  # max_epochs and recovery
    assert (tmp_path / "state").exists()
    assert done.pruned == {"0.weight", "5.weight", "7.weight"}
    assert torch.equal(student.model.get_parameter("0.weight") != 0, torch.ones(4, 2, 3).bool())
