"""Means over all positions of a feature map are exported as the pooling that they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tinypress.float_onnx import to_float_onnx
from tinypress.quantize import quantize_model
from tinypress.runtimes.onnx import open_onnx, optimized_graph
from tinypress.ship import to_onnx
from tinypress.task import Split


class Net(nn.Module):
    """[B, 3, 8, 8], or without the last dimension, -> [B, 4]."""

    def __init__(self, mean: Callable[[Tensor], Tensor], dims: int = 2) -> None:
        super().__init__()
        self.conv = (nn.Conv1d if dims == 1 else nn.Conv2d)(3, 16, 3, padding=1)
        self.mean, self.head = mean, nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.mean(nn.functional.relu6(self.conv(x))).flatten(1))
        return logits


def kinds(model: nn.Module, x: Tensor) -> list[str]:
    return [node.op_type for node in to_float_onnx(model.eval(), (x,)).graph.node]


@pytest.mark.parametrize(
    ("mean", "dims"),
    [
        (nn.AdaptiveAvgPool2d(1), 2),
        (lambda y: y.mean((2, 3), keepdim=True), 2),
        (lambda y: y.mean((-1, -2), keepdim=True), 2),
        (lambda y: y.mean(-1, keepdim=True), 1),
    ],
    ids=["layer", "mean", "from the end", "sounds"],
)
def test_means_over_all_positions(mean: Callable[[Tensor], Tensor], dims: int) -> None:
    torch.manual_seed(0)
    model, x = Net(mean, dims).eval(), torch.randn(5, 3, *[8] * dims)
    assert "GlobalAveragePool" in kinds(model, x)
    answer = open_onnx(to_float_onnx(model, (x,)).SerializeToString()).run([x.numpy()])
    np.testing.assert_allclose(answer, model(x).detach().numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (Net(lambda y: y.mean(3, keepdim=True).mean(2, keepdim=True)), torch.randn(2, 3, 8, 8)),
        (Net(lambda y: y.mean((2, 3))), torch.randn(2, 3, 8, 8)),
        (Net(lambda y: y.mean(1, keepdim=True).expand(-1, 16, -1)[..., :1], 1), torch.randn(2, 3, 8)),
        (nn.Sequential(nn.Linear(8, 8), nn.RMSNorm(8), nn.Linear(8, 2)), torch.randn(2, 5, 8)),
    ],
    ids=["a part", "without the dimensions", "over channels", "of a norm"],
)
def test_other_means_stay(model: nn.Module, x: Tensor) -> None:
    found = kinds(model, x)
    assert "GlobalAveragePool" not in found
    assert "ReduceMean" in found


class Broadcast(nn.Module):
    """A map of one rank meets a tensor of a higher one: what looks like all positions is only a part of them."""

    def __init__(self, dims: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.conv = (nn.Conv1d if dims == 1 else nn.Conv2d)(3, 6, 3, padding=1)
        self.scale = nn.Parameter(torch.randn(shape))
        self.axes = tuple(range(-dims, 0))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x) * self.scale
        return (y - y.mean(self.axes, keepdim=True)).abs().sum(0).flatten(1)


@pytest.mark.parametrize(("dims", "shape"), [(1, (4, 1, 1, 1)), (2, (4, 1, 1, 1, 1))])
def test_a_higher_rank_that_comes_in_by_broadcasting(dims: int, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model, x = Broadcast(dims, shape).eval(), torch.randn(5, 3, *[8] * dims)
    assert "ReduceMean" in kinds(model, x)
    answer = open_onnx(to_float_onnx(model, (x,)).SerializeToString()).run([x.numpy()])
    np.testing.assert_allclose(answer, model(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_nothing_that_is_unused_is_left_in_the_file() -> None:
    graph = to_float_onnx(Net(nn.AdaptiveAvgPool2d(1)).eval(), (torch.randn(2, 3, 8, 8),)).graph
    assert {tensor.name for tensor in graph.initializer} <= {
        name for node in graph.node for name in node.input
    }


def test_between_integers_it_has_an_integer_kernel() -> None:
    torch.manual_seed(0)
    x = torch.randn(32, 3, 8, 8)
    made = quantize_model(Net(nn.AdaptiveAvgPool2d(1)).eval(), Split((x,), torch.zeros(32)), (x[:2],))
    written = to_onnx(made, (x[:2],), signed_weights=False)
    found = [node.op_type for node in optimized_graph(written.SerializeToString()).node]
    assert "QLinearGlobalAveragePool" in found
    assert not {"ReduceMean", "GlobalAveragePool", "DequantizeLinear"} & set(found)
