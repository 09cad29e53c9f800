"""Equalization leaves the function as it was and makes ranges equal; moments that rounding moved are put back."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tinypress.errors import DataError
from tinypress.facts import Compressed
from tinypress.graph import chains, trace
from tinypress.quantize import dequantize_layer_weights, quantize_model, quantize_weights
from tinypress.quantize.equalize import _columns, _uncolumns, equalize_layers
from tinypress.quantize.moments import restore_moments
from tinypress.task import Split

X = torch.randn(48, 3, 12, 12, generator=torch.Generator().manual_seed(0))
SAMPLES = Split((X,), torch.arange(48) % 5)


def network(active: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Widening, depthwise, narrowing, pooled and flattened, with channels of very different ranges."""
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1),
        nn.BatchNorm2d(8),
        active(),
        nn.ZeroPad2d((0, 1, 0, 1)),
        nn.Conv2d(8, 8, 3, groups=8),
        active(),
        nn.Conv2d(8, 6, 3, groups=2),
        nn.ReLU(),
        nn.MaxPool2d(3),
        nn.Flatten(),
        nn.Linear(54, 16),
        nn.LeakyReLU(),
        nn.Linear(16, 5),
    )
    with torch.no_grad():
        for layer in (model[0], model[4]):
            layer.weight *= torch.logspace(-1, 1, 8).view(-1, 1, 1, 1)  # type: ignore[union-attr]
    return model.eval()


class Forked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.shared = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = torch.sigmoid(self.second(x)) + x
        return self.shared(torch.relu(self.shared(x)))


def test_pairs_are_those_that_nothing_stands_between() -> None:
    found = [
        (pair.first, pair.second, pair.spread, pair.ceiling) for pair in chains(trace(network(), (X[:2],)))
    ]
    assert found == [
        ("4", "6", 1, None),
        ("6", "10", 9, None),
        ("10", "12", 1, None),
    ]  # 0 has its batch norm still
    capped = [(pair.first, pair.ceiling) for pair in chains(trace(network(nn.ReLU6), (X[:2],)))]
    assert capped == [("4", 6.0), ("6", None), ("10", None)]
    assert chains(trace(Forked(), (torch.randn(2, 4),))) == ()


def test_the_function_is_the_same_and_ranges_are_equal() -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    done = equalize_layers(model, (X[:2],))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    with torch.no_grad():
        torch.testing.assert_close(done.model(X), model(X), rtol=1e-4, atol=1e-5)
    assert [change.layer for change in done.changes] == ["0", "4", "6", "10"]
    for first, second, spread in (("0", "4", 1), ("4", "6", 1), ("6", "10", 9), ("10", "12", 1)):
        rows = done.model.get_submodule(first).weight.flatten(1).abs().amax(1)  # type: ignore[union-attr,operator]
        columns = _columns(done.model.get_submodule(second), spread).abs().amax((0, 2))  # type: ignore[arg-type]
        torch.testing.assert_close(rows.double(), columns, rtol=0.02, atol=0)


def test_relu6_stays_and_only_channels_below_it_take_part() -> None:
    model = network(nn.ReLU6)
    done = equalize_layers(model, (X[:2],), SAMPLES)
    assert [change.layer for change in done.changes] == ["0", "4", "6", "10"]
    with torch.no_grad():
        torch.testing.assert_close(done.model(X), model(X), rtol=1e-4, atol=1e-5)
        top = done.model[:2](X).amax((0, 2, 3))  # type: ignore[index]
    assert bool((top > 6).any()), "some channel is clipped, or the test says nothing"
    kept = [change.layer for change in equalize_layers(model, (X[:2],)).changes]
    assert kept == ["6", "10"]  # without samples nobody knows what stays below 6


def test_a_network_without_pairs_says_so() -> None:
    done = equalize_layers(Forked(), (torch.randn(2, 4),))
    assert [note.code for note in done.notes] == ["TP230"]


@given(st.sampled_from([1, 2, 4]), st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_columns_are_put_back_where_they_were(groups: int, inputs: int, outputs: int) -> None:
    layer = nn.Conv2d(groups * inputs, groups * outputs, 3, groups=groups)
    columns = _columns(layer, 1)
    torch.testing.assert_close(_uncolumns(columns, layer), layer.weight.double(), rtol=0, atol=0)
    # scaling the column of one channel is scaling that channel of the input
    factor = torch.arange(1, groups * inputs + 1, dtype=torch.float64)
    x = torch.randn(2, groups * inputs, 4, 4)
    scaled = copy.deepcopy(layer)
    scaled.weight.data = _uncolumns(columns * factor[:, None], layer).float()
    torch.testing.assert_close(scaled(x), layer(x * factor.float().view(-1, 1, 1)), rtol=1e-4, atol=1e-4)


def means_and_spreads(model: nn.Module, names: list[str]) -> dict[str, tuple[Tensor, Tensor]]:
    found = {}
    for name in names:
        layer = model.get_submodule(name)
        layer.register_forward_hook(
            lambda own, _, made, name=name: found.__setitem__(
                name, (made.transpose(0, 1).flatten(1).mean(1), made.transpose(0, 1).flatten(1).std(1))
            )
        )
    with torch.no_grad():
        model(X)
    return found


@pytest.mark.parametrize("spread", [False, True])
@pytest.mark.parametrize("group_size", [None, 4])
def test_moments_are_those_of_the_float_network_again(spread: bool, group_size: int | None) -> None:
    model = equalize_layers(network(), (X[:2],)).model  # only to fold
    rounded = quantize_weights(model, 3, group_size=group_size, example_inputs=(X[:2],))
    assert rounded.plan is not None
    quantized = copy.deepcopy(rounded.model)
    restored = restore_moments(quantized, model, rounded.plan.weights, SAMPLES, spread=spread)
    names = ["0", "4", "6", "10", "12"]
    assert [change.layer for change in restored.changes] == names
    wanted, was, now = (means_and_spreads(copy.deepcopy(m), names) for m in (model, rounded.model, quantized))
    for name in names:
        torch.testing.assert_close(now[name][0], wanted[name][0], rtol=1e-3, atol=1e-4)
        assert not torch.allclose(was[name][0], wanted[name][0], rtol=1e-3, atol=1e-4)
        if spread:
            torch.testing.assert_close(now[name][1], wanted[name][1], rtol=1e-3, atol=1e-4)
        else:
            assert restored.weights[f"{name}.weight"] is rounded.plan.weights[f"{name}.weight"]
        real = dequantize_layer_weights(restored.weights[f"{name}.weight"])
        assert torch.equal(quantized.get_submodule(name).weight, real)
    assert not any(layer._forward_hooks for layer in quantized.modules())


def test_a_layer_without_bias_or_used_twice_is_named() -> None:
    model = Forked().eval()
    model.first.bias = None
    x = Split((torch.randn(20, 4),), torch.zeros(20))
    done = quantize_weights(model, 4, calibration=x, bias_correction=True)
    left = {note.layer: note.text for note in done.notes if note.code == "TP231"}
    assert set(left) == {"first", "shared"}
    assert "no bias" in left["first"]
    assert "more than once" in left["shared"]


def test_the_remedies_go_through_both_ways_of_quantizing() -> None:
    model = Compressed(network(nn.ReLU6))
    both = {"equalize": True, "bias_correction": True, "batch_norm": SAMPLES}
    whole = quantize_model(model, SAMPLES, (X[:2],), **both)  # type: ignore[arg-type]
    weights = quantize_weights(model, 8, group_size=None, calibration=SAMPLES, **both)  # type: ignore[arg-type]
    assert whole.plan is not None
    assert weights.plan is not None
    assert whole.plan.values
    for name, weight in weights.plan.weights.items():
        assert torch.equal(weight.packed, whole.plan.weights[name].packed)
        assert torch.equal(weight.scale, whole.plan.weights[name].scale)
    with torch.no_grad():
        torch.testing.assert_close(whole.model(X), model.model(X), rtol=0.1, atol=0.1)
    for call in (
        lambda: quantize_model(model, None, (X[:2],), bias_correction=True),
        lambda: quantize_weights(model, 4, bias_correction=True),
    ):
        with pytest.raises(DataError, match="on samples only"):
            call()
