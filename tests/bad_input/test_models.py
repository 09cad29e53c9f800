"""Networks and numbers that no technique can work with: refused by name, and the network stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bad_input.tiny import (
    EXAMPLE,
    INF,
    NAN,
    assert_unchanged,
    network,
    recipes,
    refused,
    samples,
    state_of,
    task,
)
from tinypress import (
    compute_neuron_importance,
    press,
    prune_layer_neurons,
    prune_model_by_magnitude,
    prune_weights_by_magnitude,
    quantize_layer_weights,
    quantize_model,
    train_with_distillation,
)
from tinypress.errors import InputError, ModelError
from tinypress.press.compare import BASELINE
from tinypress.press.recipe import Recipe
from tinypress.press.step import Magnitude, Quantize, Recover, Shrink
from tinypress.press.step import Student as StudentStep
from tinypress.runtimes.onnx import open_onnx
from tinypress.train.loop import Schedule

ONCE = Schedule(epochs=1, learning_rate=0.001)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize(
    ("call", "work"),
    [
        ("prune_model_by_magnitude(Sequential", lambda m: prune_model_by_magnitude(m, 0.5)),
        ("prune_weights_by_magnitude(Linear", lambda m: prune_weights_by_magnitude(m[0], 0.5)),
        ("quantize_layer_weights(Linear", lambda m: quantize_layer_weights(m[0])),
        ("(", lambda m: quantize_model(m, samples(), EXAMPLE)),
        ("(", lambda m: prune_layer_neurons(m, "0", 0.5, EXAMPLE)),
        ("compute_neuron_importance(Linear", lambda m: compute_neuron_importance(m[0])),
        ("fit(", lambda m: train_with_distillation(m, network(), samples(), samples(), schedule=ONCE)),
    ],
)
def test_weights_that_are_not_finite(value: float, call: str, work: Callable[[nn.Module], Any]) -> None:
    model = network(value)
    before = state_of(model)
    with refused(ModelError, call):
        work(model)
    assert_unchanged(model, before)


@pytest.mark.parametrize("value", [NAN, INF])
def test_press_refuses_weights_that_are_not_finite_before_it_writes(value: float, tmp_path: Path) -> None:
    with refused(ModelError, "press('tiny'", "'0.weight'", "NaN or infinity"):
        press(task(model=network(value)), recipes(Magnitude(sparsity=0.5)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_press_names_a_running_variance_that_is_nan(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).eval()
    model[1].running_var.fill_(NAN)
    with refused(ModelError, "'1.running_var' holds NaN"):
        press(task(model=model), recipes(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", [1.2, -0.1, NAN, True, "0.5", None])
@pytest.mark.parametrize(
    ("call", "work"),
    [
        ("prune_model_by_magnitude(", lambda m, v: prune_model_by_magnitude(m, v)),
        ("prune_weights_by_magnitude(", lambda m, v: prune_weights_by_magnitude(m[0], v)),
        ("prune_layer_neurons(", lambda m, v: prune_layer_neurons(m, "0", v, EXAMPLE)),
    ],
)
def test_a_fraction_out_of_range(value: Any, call: str, work: Callable[[nn.Module, Any], Any]) -> None:
    model = network()
    before = state_of(model)
    with refused(InputError, call, repr(value)):
        work(model, value)
    assert_unchanged(model, before)


@pytest.mark.parametrize("value", [1, 9, 8.5, True, "8"])
def test_bits_out_of_range(value: Any) -> None:
    model = network()
    before = state_of(model)
    with refused(InputError, "quantize_layer_weights(Linear", f"bits={value!r}"):
        quantize_layer_weights(model[0], value)
    with refused(InputError, f"bits={value!r}"):
        quantize_model(model, samples(), EXAMPLE, bits=value)
    assert_unchanged(model, before)


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_constant_weights_are_pressed(value: float, tmp_path: Path) -> None:
    model = network()
    for parameter in model.parameters():
        parameter.data.fill_(value)
    before = state_of(model)
    both = Recipe(name="both", steps=(Magnitude(sparsity=0.5), Quantize()), ship=("onnx", "archive"))
    receipt = press(task(model=model), (BASELINE, both), tmp_path / "run")
    assert_unchanged(model, before)
    x = samples(5).inputs[0]
    found = open_onnx(tmp_path / "run" / "artifacts" / "both.onnx").run([x.numpy()])
    pruned = prune_model_by_magnitude(model, 0.5).model
    assert torch.allclose(torch.from_numpy(found), pruned(x), atol=0.05)
    assert {candidate.name for candidate in receipt.candidates} == {"fp32", "both", "both.archive"}


class NoLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(1, keepdim=True) * self.weight


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x)
        return result if x.sum() > 0 else -result


class FixedBatch(Branches):
    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x)
        return result.reshape(2, 3)


class TwoOutputs(Branches):
    def forward(self, x: Tensor) -> Any:
        return self.layer(x), x


class DictOutput(Branches):
    def forward(self, x: Tensor) -> Any:
        return {"logits": self.layer(x)}


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (Magnitude(sparsity=0.5), ("sparsity=0.5", "no layer with weights to prune")),
        (Quantize(), ("quantize_model(NoLayer, bits=8", "no Linear or Conv layer")),
        (Shrink(ratio=0.5), ("shrink_model(NoLayer, 0.5", "no layer can lose neurons")),
        (StudentStep(ratio=0.5), ("shrink_model(NoLayer, 0.5", "no layer can lose neurons")),
    ],
)
def test_nothing_to_press(step: Any, words: tuple[str, ...], tmp_path: Path) -> None:
    steps = (step, Recover()) if isinstance(step, StudentStep) else (step,)
    with refused(ModelError, *words):
        press(task(model=NoLayer(), build=NoLayer), recipes(*steps), tmp_path / "run")
    assert not (tmp_path / "run" / "receipt.json").exists()


def test_control_flow_that_depends_on_the_data(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = Branches()
    before = state_of(model)
    with refused(ModelError, "to_float_onnx(Branches", "data-dependent", "Replace control flow"):
        press(task(model=model), recipes(), tmp_path / "run")
    assert_unchanged(model, before)
    assert not list(tmp_path.rglob("*.onnx"))
    assert capfd.readouterr().err == ""  # the exporter prints half a graph


def test_a_batch_size_that_is_frozen(tmp_path: Path) -> None:
    with refused(ModelError, "to_float_onnx(FixedBatch", "cannot be exported"):
        press(task(model=FixedBatch()), recipes(), tmp_path / "run")


@pytest.mark.parametrize(("model", "count"), [(TwoOutputs(), 2), (DictOutput(), 1)])
def test_outputs_that_are_not_one_tensor(model: nn.Module, count: int, tmp_path: Path) -> None:
    with refused(ModelError, f"{type(model).__name__})", f"with {count} tensors in it"):
        press(task(model=model), recipes(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_example_that_the_network_does_not_take(tmp_path: Path) -> None:
    with refused(ModelError, "press('tiny', Linear)", "does not run on example_inputs of shapes [(2, 2)]"):
        press(task(model=nn.Linear(5, 3)), recipes(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_parameters_that_are_not_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    name = str(dtype).removeprefix("torch.")
    with refused(ModelError, "press('tiny', Linear)", f"is {name}", "model.float()"):
        press(task(model=nn.Linear(2, 3).to(dtype)), recipes(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_nothing_that_can_be_trained(tmp_path: Path) -> None:
    with refused(ModelError, "fit(Sequential", "no parameter requires a gradient"):
        press(task(model=network().requires_grad_(False)), recipes(Recover()), tmp_path / "run")


def test_a_layer_that_is_not_there() -> None:
    with refused(ModelError, "prune_layer_neurons(Sequential, 'zero', 0.5", "Name one of 0, 1, 2"):
        prune_layer_neurons(network(), "zero", 0.5, EXAMPLE)


def test_a_teacher_of_another_shape() -> None:
    with refused(ModelError, "train_with_distillation(", "(3,)", "(4,)"):
        train_with_distillation(network(), nn.Linear(2, 4), samples(), samples(), schedule=ONCE)


def test_a_loss_that_becomes_nan(tmp_path: Path) -> None:
    with refused(ModelError, "fit(Sequential", "the loss is nan at step 1 of epoch 1"):
        press(task(loss=lambda outputs, targets: outputs.sum() * NAN), recipes(Recover()), tmp_path / "run")
