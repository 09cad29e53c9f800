"""Samples, metrics, losses and arguments that cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bad_input.tiny import EXAMPLE, NAN, assert_unchanged, network, recipes, refused, samples, state_of, task
from tinypress import Split, press, quantize_model, split_from
from tinypress.errors import DataError, InputError, RecipeError, TaskError
from tinypress.press.step import Distill, Recover, Student

X, Y = torch.zeros(3, 2), torch.zeros(3).long()


@pytest.mark.parametrize(
    ("batches", "words"),
    [
        ([], ("the loader is empty",)),
        ("ab", ("batch 1 is not a pair",)),
        (5, ("split_from(5)", "int")),
        ([([1, 2], [3, 4])], ("batch 1", "a int")),
        ([(X.numpy(), Y)], ("batch 1", "ndarray")),
        ([(X, Y), (torch.zeros(3, 4), Y)], ("batch 2", "(4,)", "(2,)")),
        ([(X, Y), ((X, X), Y)], ("batch 2", "batch 1")),
        ([(torch.tensor(1.0), torch.tensor(1))], ("batch 1", "without rows")),
    ],
)
def test_loaders(batches: Any, words: tuple[str, ...]) -> None:
    with refused(DataError, "split_from(", *words):
        split_from(batches)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((X, Y), ("not a tuple", "Tensor")),
        (((X,), [0, 0, 0]), ("targets is a list",)),
        (((X.numpy(),), Y), ("inputs[0] is a ndarray",)),
        (((X,), torch.tensor(1)), ("targets is a tensor without rows",)),
        (((X,), Y[:2]), ("[2, 3]",)),
        (((X[:0],), Y[:0]), ("no samples",)),
        (((X * NAN,), Y), ("input 0 holds NaN",)),
        (((X,), Y, Y[:1]), ("[1, 3]",)),
    ],
)
def test_splits(arguments: Any, words: tuple[str, ...]) -> None:
    with refused(DataError, "Split(", *words):
        Split(*arguments)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": None}, ("model is a NoneType",)),
        ({"example_inputs": X}, ("not a tuple of tensors",)),
        ({"example_inputs": ()}, ("example_inputs is empty",)),
        ({"example_inputs": (torch.zeros(2, 5),)}, ("(5,)", "(2,)", "train")),
        ({"example_inputs": (torch.zeros(2, 2).long(),)}, ("torch.float32", "torch.int64")),
        ({"validation": [(X, Y)]}, ("validation is a list",)),
        ({"test": None}, ("test is a NoneType",)),
    ],
)
def test_tasks(changes: dict[str, Any], words: tuple[str, ...]) -> None:
    with refused(TaskError, "Task('tiny')", *words):
        task(**changes)


GOOD = samples(40, 3)
TOO_HIGH = Split(GOOD.inputs, GOOD.targets + 1)
FLOATING = Split(GOOD.inputs, GOOD.targets.float())


@pytest.mark.parametrize("name", ["train", "validation"])
@pytest.mark.parametrize("split", [TOO_HIGH, FLOATING], ids=["out of range", "float"])
@pytest.mark.parametrize("step", [Recover(), Distill()], ids=["recover", "distill"])
def test_labels_that_the_loss_refuses(step: Any, split: Split, name: str, tmp_path: Path) -> None:
    model = network()
    before = state_of(model)
    with refused(DataError, "40", "targets"):
        press(task(model=model, **{name: split}), recipes(step), tmp_path / "run")
    assert_unchanged(model, before)
    assert not (tmp_path / "run" / "receipt.json").exists()


@pytest.mark.parametrize(
    ("split", "words"),
    [(TOO_HIGH, ("is 3", "3 classes (0 to 2)")), (FLOATING, ("torch.float32", "integer targets"))],
)
def test_labels_that_the_metric_refuses(split: Split, words: tuple[str, ...], tmp_path: Path) -> None:
    with refused(DataError, "accuracy(outputs=(40, 3), targets=(40,))", *words):
        press(task(test=split), recipes(), tmp_path / "run")
    assert not (tmp_path / "run" / "receipt.json").exists()


def test_calibration_on_one_sample_repeated() -> None:
    with refused(DataError, "quantize_model(Sequential, bits=8", "all 10 calibration samples"):
        quantize_model(network(), Split((torch.ones(10, 2),), torch.zeros(10)), EXAMPLE)


def test_training_on_one_sample(tmp_path: Path) -> None:
    with refused(DataError, "fit(Sequential, 1 samples", "one sample cannot be trained on"):
        press(task(train=samples(1)), recipes(Recover()), tmp_path / "run")


def of_nan(outputs: Tensor, targets: Tensor) -> float:
    return NAN


def of_text(outputs: Tensor, targets: Tensor) -> Any:
    return "0.9"


def of_error(outputs: Tensor, targets: Tensor) -> float:
    raise KeyError("boom")


def of_resamples(outputs: Tensor, targets: Tensor) -> float:
    if len(outputs.unique(dim=0)) < 40:
        raise ZeroDivisionError("a class is missing")
    return 0.5


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        (of_nan, ("of_nan(outputs=(40, 3), targets=(40,))", "returned nan")),
        (of_text, ("of_text(outputs=(40, 3)", "returned a str")),
        (of_error, ("of_error(outputs=(40, 3)", "KeyError: 'boom'")),
        (of_resamples, ("of_resamples(", "ZeroDivisionError: a class is missing", "resamples")),
        ("acuracy", ("resolve_metric('acuracy'", "Did you mean 'accuracy'?")),
        (5, ("resolve_metric(5)",)),
    ],
)
def test_metrics(metric: Any, words: tuple[str, ...], tmp_path: Path) -> None:
    with refused(InputError, *words):
        press(task(metric=metric), recipes(), tmp_path / "run")
    assert not (tmp_path / "run" / "receipt.json").exists()


@pytest.mark.parametrize(
    ("loss", "kind", "words"),
    [
        (of_error, DataError, ("KeyError: 'boom'",)),
        (lambda o, t: nn.functional.cross_entropy(o, t, reduction="none"), InputError, ("shape (64,)",)),
        (lambda o, t: 1.0, InputError, ("returned a float",)),
    ],
)
def test_losses(loss: Any, kind: Any, words: tuple[str, ...], tmp_path: Path) -> None:
    with refused(kind, "fit(Sequential, 64 samples", *words):
        press(task(loss=loss), recipes(Recover()), tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "steps", "words"),
    [
        ({"train": None}, (Recover(),), ("'recover' trains", "no train data")),
        ({"loss": None}, (Distill(),), ("'distill' trains", "gives no loss")),
        ({"build": None}, (Student(ratio=0.5), Recover()), ("no build()", "Add build")),
    ],
)
def test_training_without_its_means_is_refused_before_any_work(
    changes: dict[str, Any], steps: Any, words: tuple[str, ...], tmp_path: Path
) -> None:
    with refused(TaskError, "recipe 'pressed' on task 'tiny'", *words):
        press(task(**changes), recipes(*steps), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def broken_build() -> nn.Module:
    raise FileNotFoundError("weights.pt")


@pytest.mark.parametrize(
    ("build", "words"),
    [(broken_build, ("FileNotFoundError: weights.pt",)), (lambda: None, ("returned a NoneType",))],
)
def test_a_build_that_fails(build: Any, words: tuple[str, ...], tmp_path: Path) -> None:
    with refused(TaskError, "student(ratio=0.5) of task 'tiny'", *words):
        press(task(build=build), recipes(Student(ratio=0.5), Recover()), tmp_path / "run")


@pytest.mark.parametrize("name", ["seed", "threads", "latency_threads"])
@pytest.mark.parametrize("value", [-1, 1.5, NAN, True, "1", None])
def test_whole_numbers_of_press(name: str, value: Any, tmp_path: Path) -> None:
    with refused(InputError, f"press({name}={value!r})", "Give a whole number"):
        press(task(), recipes(), tmp_path / "run", **{name: value})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", [-0.1, NAN, True, "0.5"])
def test_tolerances(value: Any, tmp_path: Path) -> None:
    with refused(InputError, f"press(tolerance={value!r})", "tolerance"):
        press(task(), recipes(), tmp_path / "run", tolerance=value)
    with refused(InputError, "press('tiny')", repr(value)):
        press(task(tolerance=value), recipes(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_other_kinds_of_arguments(tmp_path: Path) -> None:
    given: Any = None
    with refused(TaskError, "press(None)", "NoneType"):
        press(given, recipes(), tmp_path / "run")
    given = "abc"
    with refused(RecipeError, "press('tiny')", "Recipe"):
        press(task(), given, tmp_path / "run")
    given = "run"
    with refused(InputError, "press('tiny')", "pathlib.Path('run')"):
        press(task(), recipes(), given)
    with refused(RecipeError, "press('tiny', 0 recipes)", "one baseline"):
        press(task(), (), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_quantize_twice() -> None:
    once = quantize_model(network(), None, EXAMPLE)
    with refused(InputError, "quantize_model(Sequential, bits=8", "quantized already"):
        quantize_model(once, None, EXAMPLE)
