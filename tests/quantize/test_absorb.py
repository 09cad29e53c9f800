"""Batch norm that the scales of integer weights absorb: the same products, and moments of the quantized layers."""

from __future__ import annotations

import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tinypress.errors import InputError
from tinypress.facts import Compressed
from tinypress.quantize import dequantize_layer_weights, quantize_layer_weights, quantize_weights
from tinypress.quantize.absorb import scaled_rows
from tinypress.runtimes.onnx import open_onnx
from tinypress.ship import to_onnx
from tinypress.task import Split


class Net(nn.Module):
    """x [B, 3, 8, 8] -> y [B, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm_a = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.b, self.norm_b = nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm_a(self.a(x)))
        x = torch.relu(self.norm_b(self.b(x)))
        return self.head(x.mean((2, 3)))


def net() -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = Net()
        for norm in (model.norm_a, model.norm_b):
            nn.init.normal_(norm.weight, 1.0, 0.5)
            nn.init.normal_(norm.bias, 0.3, 0.2)
        norm_a = model.norm_a.weight.detach()
        norm_a[0], norm_a[1] = -0.7, 0.0  # a channel that is turned over, and one that is silent
        for _ in range(60):
            model(images(32))
    return model.eval()


def images(count: int) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(count)) * 2 + 0.5


def split(count: int) -> Split:
    return Split((images(count),), torch.zeros(count))


@given(
    st.lists(st.floats(-4, 4, width=32), min_size=3, max_size=3),
    st.integers(2, 8),
    st.sampled_from(["symmetric", "affine"]),
    st.sampled_from([None, 2, 4, 7]),
)
def test_rows_are_multiplied_by_their_factor(
    factors: list[float], bits: int, scheme: str, group: int | None
) -> None:
    layer = nn.Linear(5, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(-1, 2, 15).view(3, 5))
        layer.weight[1, 2] = 0.0
    packed = quantize_layer_weights(layer, bits, scheme=scheme, group_size=group)  # type: ignore[arg-type]
    factor = torch.tensor(factors, dtype=torch.float64)
    made = dequantize_layer_weights(scaled_rows(packed, factor))
    wanted = dequantize_layer_weights(packed).double() * factor[:, None]
    assert torch.allclose(made.double(), wanted, rtol=1e-6, atol=1e-30)
    assert made[1, 2] == 0
    assert (made[factor == 0] == 0).all()


@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
def test_the_plan_is_the_network_and_the_file(scheme: str) -> None:
    done = quantize_weights(net(), 4, scheme=scheme, group_size=4, batch_norm=split(48))  # type: ignore[arg-type]
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in done.model.modules())
    assert done.plan is not None
    for name, weight in done.plan.weights.items():
        assert torch.equal(done.model.get_parameter(name), dequantize_layer_weights(weight))
    x = images(6)
    proto: onnx.ModelProto = to_onnx(done, (x[:2],))
    written = torch.from_numpy(open_onnx(proto.SerializeToString()).run([x.numpy()]))
    with torch.no_grad():
        assert torch.allclose(written, done.model(x), atol=1e-4)


def test_each_channel_has_the_moments_of_the_float_network_again() -> None:
    model, x = net(), images(96)
    seen: dict[str, Tensor] = {}

    def outputs(network: nn.Module, path: str) -> Tensor:
        hook = network.get_submodule(path).register_forward_hook(lambda m, i, y: seen.__setitem__(path, y))
        with torch.no_grad():
            network(x)
        hook.remove()
        return seen[path].transpose(0, 1).flatten(1)

    again = quantize_weights(model, 2, group_size=None, batch_norm=Split((x,), torch.zeros(len(x)))).model
    once = quantize_weights(model, 2, group_size=None, example_inputs=(x[:2],)).model
    gamma, beta = model.norm_b.weight.detach(), model.norm_b.bias.detach()
    made = outputs(again, "norm_b")
    assert torch.allclose(made.mean(1), beta, atol=1e-3)
    moving = torch.arange(8) != 1  # what a silent channel feeds does not move
    assert torch.allclose(made.std(1)[moving], gamma.abs()[moving], rtol=1e-2)
    assert not torch.allclose(outputs(once, "norm_b").mean(1), beta, atol=1e-2)


def test_scales_that_are_fixed_cannot_absorb() -> None:
    for settings in ({"power_of_two": True}, {"scheme": "float16", "bits": 16}):
        with pytest.raises(InputError, match="fixed"):
            quantize_weights(net(), batch_norm=split(8), **settings)  # type: ignore[arg-type]


def test_the_network_that_came_in_stays_as_it_was() -> None:
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    done = quantize_weights(Compressed(model), 4, batch_norm=split(8))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {change.layer for change in done.changes} >= {"a", "b", "head", "norm_a", "norm_b"}
