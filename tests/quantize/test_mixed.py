"""Bits by layer: measured losses, a choice under a budget, and networks quantized by it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tinypress.errors import DataError, InputError
from tinypress.quantize import choose_bits, measure_sensitivity, quantize_model, quantize_weights
from tinypress.quantize.layer import dequantize_layer_weights
from tinypress.quantize.sensitivity import FLOAT, LayerBits, output_error, weight_bytes
from tinypress.task import Split

EXAMPLE = (torch.zeros(2, 12),)


class Net(nn.Module):
    """Three Linear: the middle one hardly matters, the last one matters most."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(12, 16), nn.Linear(16, 16), nn.Linear(16, 5)
        self.middle.weight.data *= 0.05

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(x))
        out: Tensor = self.last(y + self.middle(y))
        return out


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def samples() -> Split:
    return Split((torch.randn(150, 12, generator=torch.Generator().manual_seed(1)),), torch.zeros(150))


@pytest.fixture(scope="module")
def measured(net: nn.Module, samples: Split) -> tuple[LayerBits, ...]:
    return measure_sensitivity(net, samples, EXAMPLE, (8, 4, 2))


def test_each_loss_is_that_of_one_layer_alone(
    net: nn.Module, samples: Split, measured: tuple[LayerBits, ...]
) -> None:
    assert [(each.layer, each.bits) for each in measured] == [
        (layer, bits) for layer in ("first", "middle", "last") for bits in (8, 4, 2, FLOAT)
    ]
    with torch.no_grad():
        exact = net(*samples.inputs)
        for each in measured:
            if each.bits == FLOAT:
                assert each.loss == 0
                assert each.weight_bytes == 4 * net.get_parameter(f"{each.layer}.weight").numel()
                continue
            method = "nearest" if each.bits == 8 else "mse"
            one = quantize_weights(net, {each.layer: each.bits}, group_size=None, method=method)
            assert each.loss == pytest.approx(output_error(one.model(*samples.inputs), exact), rel=1e-3)
            assert one.plan is not None
            packed = one.plan.weights[f"{each.layer}.weight"]
            assert (
                each.weight_bytes == weight_bytes(packed) == packed.packed.numel() + 4 * packed.scale.numel()
            )


def test_layers_that_matter_keep_more_bits(measured: tuple[LayerBits, ...]) -> None:
    whole = sum(each.weight_bytes for each in measured if each.bits == FLOAT)
    found = choose_bits(measured, 0.2, allow_float=False)
    assert found.weight_bytes <= 0.2 * whole
    assert found.bits["middle"] == 2
    assert found.bits["first"] > 2
    assert found.bits["last"] > 2
    assert choose_bits(measured, whole).bits == {}  # all stay float
    assert choose_bits(measured, whole, allow_float=False).bits == dict.fromkeys(
        ("first", "middle", "last"), 8
    )


def test_mixed_loses_less_than_uniform_at_the_same_bytes(net: nn.Module, samples: Split) -> None:
    found = measure_sensitivity(net, samples, EXAMPLE, (8, 6, 5, 4, 3, 2))
    budget = sum(each.weight_bytes for each in found if each.bits == 4)
    mixed = choose_bits(found, budget)
    assert mixed.weight_bytes <= budget
    fresh = torch.randn(200, 12, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        exact = net(fresh)
        ours = quantize_weights(net, mixed.bits, group_size=None, method="mse").model(fresh)
        uniform = quantize_weights(net, 4, group_size=None, method="mse").model(fresh)
    assert output_error(ours, exact) < output_error(uniform, exact)


def test_a_budget_that_cannot_be_met_says_with_what_it_could(measured: tuple[LayerBits, ...]) -> None:
    least = sum(each.weight_bytes for each in measured if each.bits == 2)
    with pytest.raises(InputError, match=f"take {least} bytes"):
        choose_bits(measured, least - 1)
    assert choose_bits(measured, least).bits == dict.fromkeys(("first", "middle", "last"), 2)
    for wrong in (0, -1.0, True, float("nan")):
        with pytest.raises(InputError, match="must be positive"):
            choose_bits(measured, wrong)


def test_what_was_measured_is_kept(net: nn.Module, samples: Split, tmp_path: Path) -> None:
    cache, asked = tmp_path / "kept.safetensors", []

    class Stop(Exception):
        pass

    def distance(outputs: Tensor, exact: Tensor) -> float:
        asked.append(1)
        if len(asked) == 3:
            raise Stop
        return output_error(outputs, exact)

    with pytest.raises(Stop):
        measure_sensitivity(net, samples, EXAMPLE, (4, 2), distance=distance, cache=cache)
    told: list[tuple[int, int]] = []
    again = measure_sensitivity(
        net,
        samples,
        EXAMPLE,
        (4, 2),
        distance=distance,
        cache=cache,
        progress=lambda what, done, total: told.append((done, total)),
    )
    assert len(asked) == 3 + 4  # two of six were there
    assert told == [(place, 6) for place in range(1, 7)]
    assert again == tuple(
        each for each in measure_sensitivity(net, samples, EXAMPLE, (4, 2), distance=distance)
    )
    other = copy.deepcopy(net)
    other.get_parameter("last.weight").data += 1
    before = len(asked)
    measure_sensitivity(other, samples, EXAMPLE, (4, 2), distance=distance, cache=cache)
    assert len(asked) == before + 6  # of other weights nothing is taken


def test_the_network_stays_as_it_is(net: nn.Module, samples: Split) -> None:
    before = {name: x.clone() for name, x in net.state_dict().items()}
    measure_sensitivity(net, samples, EXAMPLE, (2,))
    assert all(torch.equal(x, before[name]) for name, x in net.state_dict().items())


def test_what_means_nothing_is_refused(net: nn.Module, samples: Split) -> None:
    for bits in ((), (4, 4), (9,)):
        with pytest.raises(InputError):
            measure_sensitivity(net, samples, EXAMPLE, bits)
    broken = copy.deepcopy(net)
    broken.get_parameter("last.bias").data[0] = float("inf")
    with pytest.raises(DataError, match="NaN or infinite"):
        measure_sensitivity(broken, samples, EXAMPLE, (4,))


def test_networks_take_bits_by_layer(net: nn.Module, samples: Split) -> None:
    found = quantize_model(net, samples, EXAMPLE, bits={"first": 8, "middle": 3})
    assert found.plan is not None
    assert {name: weight.bits for name, weight in found.plan.weights.items()} == {
        "first.weight": 8,
        "middle.weight": 3,
    }
    assert torch.equal(
        dequantize_layer_weights(found.plan.weights["middle.weight"]),
        found.model.get_parameter("middle.weight"),
    )
    assert torch.equal(found.model.get_parameter("last.weight"), net.get_parameter("last.weight"))
    assert "x" in found.plan.values
    assert {note.layer for note in found.notes if note.code == "TP204"} == {"last"}
    for call in (
        lambda: quantize_model(net, samples, EXAMPLE, bits={"tail": 8}),
        lambda: quantize_weights(net, {"tail": 8}),
    ):
        with pytest.raises(InputError, match="bits: 'tail' is no layer"):
            call()
    with pytest.raises(InputError, match="bits names no layer"):
        quantize_weights(net, {})
