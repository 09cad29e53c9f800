"""Orders of steps: what is refused and why, before any training, and what is checked after a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from press.small import small_task
from tinypress.errors import InputError, ModelError, RecipeError, TinypressError
from tinypress.facts import Compressed, QuantPlan
from tinypress.press.bench import Bench
from tinypress.press.carry_out import carry_out
from tinypress.press.compare import BASELINE
from tinypress.press.composition import batch_norm_is_stale, check_state, contract_of, refusal
from tinypress.press.engine import Engine
from tinypress.press.ensured import kept_notes
from tinypress.press.pipeline import press
from tinypress.press.recipe import Recipe
from tinypress.press.rehearse import rehearse
from tinypress.press.run_folder import open_run
from tinypress.press.step import (
    Distill,
    Factorize,
    Gradual,
    Layers,
    Magnitude,
    Qat,
    Quantize,
    Recover,
    Shrink,
    Step,
    Structured,
    Student,
)
from tinypress.press.steps import apply_step
from tinypress.train import reestimate_batch_norm

TASK = small_task()
BENCH = Bench(TASK, Engine(), seed=0)
PRUNE, PATTERN, CUT = Magnitude(sparsity=0.5), Magnitude(sparsity=0.5, pattern="2:4"), Shrink(ratio=0.5)
THIN, INT8 = Factorize(energy=0.7), Quantize()
FORBIDDEN: list[tuple[tuple[Step, ...], tuple[str, ...]]] = [
    ((INT8, Recover()), ("'recover' after 'quantize'", "off their integers", "Put 'quantize' last")),
    ((INT8, PRUNE), ("'magnitude' after 'quantize'", "old integers")),
    ((INT8, CUT), ("'shrink' after 'quantize'", "as they were")),
    ((INT8, Quantize(weights_only=True, bits=4)), ("on integers already",)),
    ((INT8, Qat()), ("'qat' after 'quantize'", "on integers already")),
    ((Qat(), Recover()), ("'recover' after 'qat'", "off their integers", "Put 'qat' last")),
    ((PRUNE, THIN), ("'factorize' after 'magnitude'", "fill the zeros", "before 'magnitude'")),
    ((Gradual(sparsity=0.5), Recover(), THIN), ("'factorize' after 'gradual'",)),
    ((PATTERN, CUT), ("'shrink' after 'magnitude'", "groups of its pattern", "before 'magnitude'")),
    ((PATTERN, Recover(), Structured(ratio=0.5)), ("'structured' after 'magnitude'", "apart")),
    ((Recover(), Student(ratio=0.5), Recover()), ("after 'recover'", "throws earlier steps away", "first")),
    ((Student(ratio=0.5), INT8), ("never trains", "'distill'")),
]
ALLOWED: list[tuple[Step, ...]] = [
    (),
    (PRUNE, CUT, Distill(), INT8),
    (CUT, PATTERN, Recover(), INT8),
    (PATTERN, Layers(count=1), Recover()),
    (THIN, PRUNE, Recover()),
    (Student(ratio=0.5), Gradual(sparsity=0.5), INT8),
    (PRUNE, PRUNE, Recover(), Recover()),
    (PRUNE, Qat()),
    (Student(ratio=0.5), Qat()),
]


def names(steps: tuple[Step, ...]) -> str:
    return ">".join(step.technique for step in steps) or "none"


@pytest.mark.parametrize(("steps", "words"), FORBIDDEN, ids=[names(steps) for steps, _ in FORBIDDEN])
def test_a_forbidden_order_is_refused_with_its_reason_before_any_training(
    steps: tuple[Step, ...], words: tuple[str, ...], tmp_path: Path
) -> None:
    task, seen = watched_task()
    with pytest.raises(RecipeError) as refused:
        press(task, (BASELINE, Recipe(name="wrong", steps=steps)), tmp_path / "run")
    assert all(word in str(refused.value) for word in words), refused.value
    assert seen == []
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("steps", ALLOWED, ids=names)
def test_other_orders_are_not_refused(steps: tuple[Step, ...]) -> None:
    assert refusal(steps) is None


def watched_task() -> tuple[Any, list[int]]:
    """The task with a loss that notes each call: no training can begin without one."""
    seen: list[int] = []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        seen.append(len(targets))
        return nn.functional.cross_entropy(outputs, targets)

    return replace(TASK, loss=loss), seen


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ((Recover(), Layers(count=1)), "layer"),
        ((Gradual(sparsity=0.5), Quantize(weights_only=True, bits=4, keep=("nothing",))), "'nothing'"),
        ((Structured(ratio=0.3, rounds=2), Structured(parameters=3)), "3"),
    ],
    ids=["layers", "a name", "a budget"],
)
def test_what_fails_on_this_network_fails_before_the_training_that_stands_first(
    steps: tuple[Step, ...], words: str, tmp_path: Path
) -> None:
    task, seen = watched_task()
    with pytest.raises(TinypressError, match=words):
        press(task, (BASELINE, Recipe(name="late", steps=steps)), tmp_path / "run")
    assert seen == []
    rehearse(Bench(task, Engine(), 0), [Recipe(name="fine", steps=(Recover(), CUT))])
    assert seen == []


def test_a_step_looks_at_the_network_that_comes_in_as_well() -> None:
    pruned = apply_step(PRUNE, Compressed(TASK.model), BENCH, from_scratch=False)
    with pytest.raises(RecipeError, match="pruned weights are zero: a product"):
        apply_step(THIN, pruned, BENCH, from_scratch=False)
    with pytest.raises(RecipeError, match="lie on integers"):
        check_state(Recover(), replace(pruned, plan=QuantPlan()))
    check_state(CUT, pruned)


# --- batch norm -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "stale"),
    [
        ((), False),
        ((PRUNE,), True),
        ((PRUNE, Recover()), False),
        ((Recover(), THIN), True),
        ((Structured(ratio=0.5, rounds=2),), True),
        ((Student(ratio=0.5), Distill()), False),
        ((PRUNE, Gradual(sparsity=0.6)), False),
    ],
    ids=lambda x: names(x) if isinstance(x, tuple) else str(x),
)
def test_when_the_moments_are_stale(steps: tuple[Step, ...], stale: bool) -> None:
    assert batch_norm_is_stale(steps) is stale


def carried(tmp_path: Path, *steps: Step, task: Any = TASK) -> Compressed:
    with open_run(tmp_path / "run", {"steps": [step.model_dump(mode="json") for step in steps]}) as folder:
        return carry_out(folder, Recipe(name="a", steps=steps), replace(BENCH, task=task))[0]


def counted(state: Compressed) -> int:
    return [note.code for note in state.notes].count("TP406")


def test_moments_are_those_of_the_pruned_network(tmp_path: Path) -> None:
    done = carried(tmp_path, PRUNE)
    pruned = apply_step(PRUNE, Compressed(TASK.model), BENCH, from_scratch=False)
    assert TASK.train is not None
    expected = reestimate_batch_norm(pruned, TASK.train).model.get_submodule("1")
    assert torch.allclose(done.model.get_submodule("1").running_mean, expected.running_mean, atol=1e-6)
    assert torch.allclose(done.model.get_submodule("1").running_var, expected.running_var, atol=1e-6)
    assert not torch.equal(expected.running_mean, TASK.model.get_submodule("1").running_mean)
    assert torch.equal(done.model.get_parameter("0.weight"), pruned.model.get_parameter("0.weight"))
    assert counted(done) == 1


def test_they_are_estimated_once_and_before_integers_are_fixed(tmp_path: Path) -> None:
    assert counted(carried(tmp_path / "a", PRUNE, CUT)) == 1
    assert counted(carried(tmp_path / "b", PRUNE, Recover(epochs=1))) == 0
    cheap = Quantize(weights_only=True, bits=8)
    done = carried(tmp_path / "c", PRUNE, cheap)
    assert counted(done) == 1
    by_hand = apply_step(cheap, carried(tmp_path / "d", PRUNE), BENCH, from_scratch=False)
    assert torch.equal(done.model.get_parameter("0.bias"), by_hand.model.get_parameter("0.bias"))
    assert counted(carried(tmp_path / "e", cheap)) == 0


def test_without_train_data_validation_gives_them_and_one_sample_gives_none(tmp_path: Path) -> None:
    few = replace(TASK, train=None)
    done = carried(tmp_path / "a", PRUNE, task=few)
    assert "100 samples of validation" in done.notes[-1].text
    one = replace(few, validation=TASK.validation.take(slice(0, 1)))
    left = carried(tmp_path / "b", PRUNE, task=one)
    assert (left.notes[-1].code, left.notes[-1].severity) == ("TP406", "warning")


# --- after a step ---------------------------------------------------------------------------------------------------


def judged(step: Step, before: Compressed, after: Compressed) -> list[str]:
    return [note.code for note in kept_notes(step, before, after, TASK.example_inputs, torch.Size((2, 3)))]


def wrong(after: Compressed, change: Callable[[nn.Module], object]) -> Compressed:
    with torch.no_grad():
        change(after.model)
    return after


def revive(name: str) -> Callable[[nn.Module], object]:
    return lambda model: model.get_parameter(name).masked_fill_(model.get_parameter(name) == 0, 1e-9)


def test_what_a_step_must_not_do() -> None:
    def fresh(*steps: Step) -> Compressed:
        state = Compressed(TASK.model)
        for step in steps:
            state = apply_step(step, state, BENCH, from_scratch=False)
        return state

    pruned, again = fresh(PRUNE), fresh(PRUNE)
    training, cut = Recover(), fresh(PRUNE, CUT)
    assert judged(training, pruned, again) == []
    with pytest.raises(InputError, match="was given"):
        judged(training, pruned, pruned)
    for step, state, text in (
        (training, wrong(fresh(PRUNE), revive("5.weight")), "'5.weight' came back to life"),
        (CUT, wrong(fresh(PRUNE, CUT), revive("5.weight")), "'5.weight' came back to life"),
        (training, replace(again, pruned=frozenset({"0.weight"})), "no longer known as pruned"),
        (training, cut, "Keep the widths"),
        (training, replace(again, plan=QuantPlan()), "a plan of integers came back"),
        (Quantize(), again, "no plan of integers came back"),
        (
            training,
            wrong(fresh(PRUNE), lambda m: m.get_buffer("1.running_var").fill_(torch.nan)),
            "running_var",
        ),
        (
            training,
            wrong(fresh(PRUNE), lambda m: m.get_buffer("1.running_var").fill_(-1)),
            "output became NaN",
        ),
    ):
        with pytest.raises(ModelError, match=text):
            judged(step, pruned, state)
    four = Quantize(weights_only=True, bits=4)
    packed = apply_step(four, pruned, BENCH, from_scratch=False)
    assert judged(four, pruned, packed) == []
    with pytest.raises(ModelError, match="not what its integers stand for"):
        judged(four, pruned, wrong(packed, lambda m: m.get_parameter("7.weight").mul_(1.01)))


def test_what_brought_nothing_or_took_zeros_away_is_said() -> None:
    pruned = apply_step(Magnitude(sparsity=0.6), Compressed(TASK.model), BENCH, from_scratch=False)
    less = apply_step(Magnitude(sparsity=0.4), pruned, BENCH, from_scratch=False)
    assert [note.code for note in less.notes] == ["TP404"]
    assert "60.0%" in less.notes[0].text
    cut = apply_step(CUT, pruned, BENCH, from_scratch=False)
    assert [note.code for note in cut.notes if note.code.startswith("TP4")] == ["TP405"]


def test_every_contract_refuses_integers_that_are_fixed() -> None:
    for steps, _ in FORBIDDEN:
        for step in steps:
            assert contract_of(step).breaks, "nothing may follow a quantization"
