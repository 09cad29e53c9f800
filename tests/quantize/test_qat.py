"""Training-aware quantization: what is simulated ships, zeros stay, statistics freeze, killed trainings go on."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tinypress.errors import InputError, ModelError, RunError
from tinypress.facts import Compressed
from tinypress.quantize import QuantizedTraining, quantize_weights, train_quantized
from tinypress.quantize.layer import dequantize_layer_weights
from tinypress.quantize.qat import finish_training, prepare_training, training_hooks
from tinypress.quantize.simulated import Simulated, freezing
from tinypress.runtimes.onnx import open_onnx
from tinypress.ship.to_onnx import to_onnx
from tinypress.task import Split
from tinypress.train import Checkpoint, Hook, Schedule, fit, supervised

EXAMPLE = (torch.zeros(2, 3, 8, 8),)
LEARN = supervised(nn.functional.cross_entropy)
SCHEDULE = Schedule(epochs=2, learning_rate=2e-3, batch_size=16)


class Net(nn.Module):
    """Convolution, depthwise convolution, residual sum, pooling and two Linear: with and without batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm2 = nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(2)
        self.middle = nn.Linear(128, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm(self.first(x)))
        y = torch.relu(y + self.norm2(self.deep(y)))
        y = self.pool(y).flatten(1)
        return self.head(torch.relu(self.middle(y)))


def blobs(count: int, seed: int) -> Split:
    """Four classes of noisy images that differ in where they are bright."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 4
    x = 0.7 * torch.randn(count, 3, 8, 8, generator=generator)
    for row in range(count):
        place = int(y[row])
        x[row, :, 4 * (place // 2) : 4 * (place // 2) + 4, 4 * (place % 2) : 4 * (place % 2) + 4] += 1
    return Split((x,), y)


TRAIN, VALIDATION = blobs(96, 0), blobs(64, 1)


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    torch.manual_seed(0)
    schedule = Schedule(epochs=4, learning_rate=1e-2, batch_size=16)
    return fit(Net(), TRAIN, VALIDATION, LEARN, schedule).model


def pruned(model: nn.Module) -> Compressed:
    """Half of the weights of three layers at zero."""
    model = copy.deepcopy(model)
    names = ("first.weight", "middle.weight", "head.weight")
    for name in names:
        weight = model.get_parameter(name)
        weight.data[weight.abs() < weight.abs().median()] = 0
    return Compressed(model, pruned=frozenset(names))


@dataclass(frozen=True)
class Both:
    """One training twice: kept as the network that simulates, and finished."""

    simulated: Simulated
    finished: Compressed


def both(before: nn.Module | Compressed, how: QuantizedTraining) -> Both:
    compressed = before if isinstance(before, Compressed) else Compressed(before)
    ready = prepare_training(compressed, TRAIN, EXAMPLE, how)
    fitted = fit(
        ready.model,
        TRAIN,
        VALIDATION,
        LEARN,
        SCHEDULE,
        hooks=training_hooks(ready, how),
    )
    assert isinstance(fitted.model, Simulated)
    return Both(fitted.model, finish_training(Compressed(fitted.model, pruned=ready.pruned)))


@pytest.fixture(scope="module", params=[True, False], ids=["learned", "ranges"])
def eight(request: pytest.FixtureRequest, trained: nn.Module) -> Both:
    return both(pruned(trained), QuantizedTraining(learned_step=request.param))


def simulate(of: Both, x: Tensor) -> Tensor:
    with torch.no_grad():
        output: Tensor = of.simulated.eval()(x)
    return output


def test_simulation_is_what_the_file_computes(eight: Both) -> None:
    runner = open_onnx(to_onnx(eight.finished, EXAMPLE).SerializeToString())
    x = blobs(200, 2).inputs[0]
    shipped, ours = runner.run([x.numpy()]), simulate(eight, x).numpy()
    assert np.array_equal(shipped.argmax(1), ours.argmax(1))
    # the head adds up 16 inputs that may each be one step off; measured in steps of its input times its weights
    assert eight.finished.plan is not None
    step = eight.finished.plan.values["relu_2"].scale * float(
        eight.finished.model.head.weight.detach().abs().max()
    )
    assert np.abs(shipped - ours).max() <= 2 * step
    # it is the integers that agree, not only the floats: a float run of the same weights is further away
    with torch.no_grad():
        unrounded = eight.finished.model(x).numpy()
    assert np.abs(shipped - ours).mean() < 0.3 * np.abs(shipped - unrounded).mean()


def test_the_weights_are_those_of_the_plan_and_pruned_zeros_are_zero(eight: Both, trained: nn.Module) -> None:
    found, before = eight.finished, pruned(trained)
    assert found.plan is not None
    assert found.pruned == before.pruned
    assert set(found.plan.weights) == {f"{name}.weight" for name in ("first", "deep", "middle", "head")}
    for name, weight in found.plan.weights.items():
        assert torch.equal(dequantize_layer_weights(weight), found.model.get_parameter(name))
    for name in before.pruned:
        was, now = before.model.get_parameter(name) == 0, found.model.get_parameter(name) == 0
        assert bool(now[was].all())
        # sparsity is what it was, but for weights that moved to within half a step of zero
        alive = eight.simulated.model.get_parameter(name)
        assert torch.equal(alive == 0, was)
        assert float((now & ~was).float().mean()) < 0.02


def test_learning_moved_weights_steps_and_statistics(eight: Both, trained: nn.Module) -> None:
    simulated = eight.simulated
    assert not torch.equal(simulated.model.get_parameter("deep.weight"), trained.get_parameter("deep.weight"))
    assert not torch.equal(simulated.model.norm.running_var, trained.norm.running_var)
    assert bool(simulated.frozen)
    moves = [fake.move for fake in [*simulated.weights, *simulated.values] if fake.learned]
    assert all(bool((move != 0).any()) for move in moves)


def test_low_bits_come_closer_to_the_float_network_without_labels(trained: nn.Module) -> None:
    with torch.no_grad():
        taught, judged = (Split(split.inputs, trained(*split.inputs)) for split in (TRAIN, VALIDATION))
    how = QuantizedTraining(bits=2, group_size=8, weights_only=True)
    learn = supervised(nn.functional.mse_loss)
    found = train_quantized(trained, taught, judged, learn, EXAMPLE, how, schedule=SCHEDULE)
    assert found.plan is not None
    assert not found.plan.values
    assert {(weight.bits, weight.group_size) for weight in found.plan.weights.values()} == {(2, 8)}
    rounded = quantize_weights(trained, 2, group_size=8, method="mse", example_inputs=EXAMPLE)
    with torch.no_grad():
        far = [
            float(nn.functional.mse_loss(m.model(*judged.inputs), judged.targets)) for m in (found, rounded)
        ]
    assert far[0] < 0.7 * far[1]


def test_bits_by_layer_round_activations_around_eight_bits_only(trained: nn.Module) -> None:
    how = QuantizedTraining(bits={"first": 8, "middle": 4})
    ready = prepare_training(trained, TRAIN, EXAMPLE, how)
    assert isinstance(ready.model, Simulated)
    bits = {fake.names[0]: fake.grid.bits for fake in ready.model.weights}
    assert bits == {"first.weight": 8, "middle.weight": 4}
    observed = {name for fake in ready.model.values for name in fake.names}
    assert {"x", "relu"} <= observed
    assert "relu_2" not in observed  # it lies between middle and head
    kept = {note.layer for note in ready.notes if note.code == "TP210"}
    assert kept == {"deep", "head"}


def test_before_the_first_step_it_is_the_rounded_network(trained: nn.Module) -> None:
    """Batch norm folded, weights to nearest: equal to what quantize_weights makes, to the last bit."""
    how = QuantizedTraining(bits=8, weights_only=True, learned_step=False)
    ready = prepare_training(trained, TRAIN, EXAMPLE, how)
    plain = quantize_weights(trained, 8, group_size=None, example_inputs=EXAMPLE)
    with torch.no_grad():
        assert torch.equal(ready.model.eval()(*VALIDATION.inputs), plain.model(*VALIDATION.inputs))


def test_running_moments_follow_those_of_the_batch_until_they_are_frozen(trained: nn.Module) -> None:
    """As a batch norm that stands behind the layer with the weights that its integers stand for."""
    how = QuantizedTraining(bits=8, weights_only=True)
    simulated = prepare_training(trained, TRAIN, EXAMPLE, how).model.train()
    assert isinstance(simulated, Simulated)
    found, own = simulated.model, simulated.weights[0]
    assert isinstance(found, Net)
    factor = found.norm.weight / torch.sqrt(found.norm.running_var + found.norm.eps)
    with torch.no_grad():
        weight = own(found.first.weight * factor.view(-1, 1, 1, 1)) / factor.view(-1, 1, 1, 1)
    plain = copy.deepcopy(trained).train()
    plain.norm(nn.functional.conv2d(*TRAIN.inputs, weight, padding=1))
    simulated(*TRAIN.inputs)
    assert torch.allclose(found.norm.running_mean, plain.norm.running_mean, atol=1e-5)
    assert torch.allclose(found.norm.running_var, plain.norm.running_var, rtol=1e-4)
    assert int(found.norm.num_batches_tracked) == int(plain.norm.num_batches_tracked)
    freezing(0.0)(simulated, 10)
    held = found.norm.running_mean.clone()
    simulated(*TRAIN.inputs)
    assert torch.equal(found.norm.running_mean, held)


def test_a_channel_without_gamma_keeps_its_moments(trained: nn.Module) -> None:
    dead = copy.deepcopy(trained)
    dead.norm.weight.data[2] = 0.0
    simulated = prepare_training(dead, TRAIN, EXAMPLE, QuantizedTraining(weights_only=True)).model.train()
    simulated(*TRAIN.inputs)
    moved = simulated.model.norm.running_mean != dead.norm.running_mean
    assert moved.tolist() == [place != 2 for place in range(8)]
    assert bool(torch.isfinite(simulated.model.norm.running_var).all())


def test_at_few_bits_statistics_begin_as_those_of_the_rounded_network(trained: nn.Module) -> None:
    how = QuantizedTraining(bits=2, weights_only=True)
    ready = prepare_training(trained, TRAIN, EXAMPLE, how).model
    plain = quantize_weights(trained, 2, group_size=None, method="mse", example_inputs=EXAMPLE)
    with torch.no_grad():
        exact = trained(*VALIDATION.inputs)
        ours = (ready.eval()(*VALIDATION.inputs) - exact).square().mean()
        rounded = (plain.model(*VALIDATION.inputs) - exact).square().mean()
    assert float(ours) < float(rounded)


def test_gradients_reach_what_batch_norm_learns(trained: nn.Module) -> None:
    simulated = prepare_training(trained, TRAIN, EXAMPLE, QuantizedTraining(weights_only=True)).model.train()
    simulated(*TRAIN.inputs).square().sum().backward()
    for name in ("first.weight", "norm.weight", "norm.bias", "deep.bias", "head.bias"):
        gradient = simulated.model.get_parameter(name).grad
        assert gradient is not None
        assert bool((gradient != 0).any())


class _Killed(Exception):
    """Stands for the end of the process."""


def test_a_killed_training_goes_on_to_the_same_bits(trained: nn.Module, tmp_path: Path) -> None:
    how = QuantizedTraining(bits=3, weights_only=True)

    def run(kill_at: int | None, checkpoint: Checkpoint | None) -> Compressed:
        def after(step: int) -> None:
            if step == kill_at:
                raise _Killed

        hooks = [lambda model, total: Hook(after=after)]
        return train_quantized(
            trained,
            TRAIN,
            VALIDATION,
            LEARN,
            EXAMPLE,
            how,
            schedule=SCHEDULE,
            hooks=hooks,
            checkpoint=checkpoint,
        )

    kept = Checkpoint(tmp_path / "state.safetensors", every_seconds=0)
    with pytest.raises(_Killed):
        run(8, kept)
    again, whole = run(None, kept), run(None, None)
    assert again.plan is not None
    assert whole.plan is not None
    for name, weight in whole.plan.weights.items():
        assert torch.equal(again.plan.weights[name].packed, weight.packed)
        assert torch.equal(again.plan.weights[name].scale, weight.scale)
    other = QuantizedTraining(bits=2, weights_only=True)
    with pytest.raises(RunError, match=r"differs in .*work"):
        train_quantized(trained, TRAIN, VALIDATION, LEARN, EXAMPLE, other, schedule=SCHEDULE, checkpoint=kept)


def test_what_cannot_be_trained_is_refused_before_any_work(trained: nn.Module) -> None:
    def refused(model: nn.Module | Compressed, how: QuantizedTraining) -> None:
        train_quantized(model, TRAIN, VALIDATION, LEARN, EXAMPLE, how)

    with pytest.raises(InputError, match="bits is 9"):
        refused(trained, QuantizedTraining(bits=9))
    with pytest.raises(InputError, match="freeze is 2"):
        refused(trained, QuantizedTraining(freeze=2.0))
    with pytest.raises(InputError, match="'tail' is no layer"):
        refused(trained, QuantizedTraining(bits={"tail": 4}))
    with pytest.raises(InputError, match="quantized already"):
        refused(quantize_weights(trained, 4, example_inputs=EXAMPLE), QuantizedTraining())
    broken = copy.deepcopy(trained)
    broken.get_parameter("head.weight").data[0, 0] = float("nan")
    with pytest.raises(ModelError, match="NaN"):
        refused(broken, QuantizedTraining())


def test_the_network_that_came_in_stays_as_it_is(trained: nn.Module) -> None:
    before = {name: x.clone() for name, x in trained.state_dict().items()}
    ready = prepare_training(trained, TRAIN, EXAMPLE, QuantizedTraining(weights_only=True))
    ready.model.train()(*TRAIN.inputs)
    assert all(torch.equal(x, before[name]) for name, x in trained.state_dict().items())
