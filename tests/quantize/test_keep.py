"""Layers of a network that stay float, and ranges that are chosen for single ones."""

from __future__ import annotations

import onnx
import pytest
import torch
from torch import nn

from tinypress.errors import InputError
from tinypress.quantize import quantize_model
from tinypress.ship.to_onnx import to_onnx
from tinypress.task import Split

X = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
SAMPLES = Split((X,), torch.arange(64) % 4)


def network() -> nn.Module:
    torch.manual_seed(0)
    first = nn.Conv2d(3, 8, 3, padding=1)
    return nn.Sequential(
        first, nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)
    ).eval()


def integer_products(proto: onnx.ModelProto) -> list[bool]:
    """For each product, in order: whether both of its factors come out of integers."""
    made = {name: node.op_type for node in proto.graph.node for name in node.output}
    products = [node for node in proto.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    return [all(made.get(name) == "DequantizeLinear" for name in node.input[:2]) for node in products]


def test_a_kept_layer_computes_in_float_and_the_others_in_integers() -> None:
    model = network()
    told: list[tuple[str, int, int]] = []
    done = quantize_model(
        model, SAMPLES, (X[:2],), keep=["2"], progress=lambda what, at, of: told.append((what, at, of))
    )
    assert [what for what, _, _ in told] == ["quantizing the weights"] * 7 + ["observing ranges"]
    assert all(at <= of == 7 for _, at, of in told)
    assert done.plan is not None
    assert set(done.plan.weights) == {"0.weight", "5.weight"}
    assert torch.equal(done.model.get_parameter("2.weight"), model.get_parameter("2.weight"))
    assert [(note.code, note.layer) for note in done.notes] == [("TP204", "2")]
    assert integer_products(to_onnx(done, (X[:2],))) == [True, False, True]
    assert integer_products(to_onnx(quantize_model(model, SAMPLES, (X[:2],)), (X[:2],))) == [True, True, True]


def test_a_name_that_is_no_layer_is_refused_before_any_work() -> None:
    with pytest.raises(InputError, match=r"keep: '1' is no layer .*\['0', '2', '5'\]"):
        quantize_model(network(), SAMPLES, (X[:2],), keep=["1"])
    with pytest.raises(InputError, match="no Linear or Conv layer left"):
        quantize_model(network(), SAMPLES, (X[:2],), keep=["0", "2", "5"])
    with pytest.raises(InputError, match="'9' makes no value"):
        quantize_model(network(), SAMPLES, (X[:2],), other_ranges={"9": "mse"})
    with pytest.raises(InputError, match="for activations"):
        quantize_model(network(), None, (X[:2],), other_ranges={"0": "mse"})


def test_ranges_reach_the_plan() -> None:
    far = X.clone()
    far[0, 0, 0, 0] = 300.0
    samples = Split((far,), SAMPLES.targets)
    plans = {
        ranges: quantize_model(network(), samples, (X[:2],), ranges=ranges).plan
        for ranges in ("minmax", "percentile")
    }
    scales = {ranges: plan.values["input"].scale for ranges, plan in plans.items() if plan is not None}
    assert scales["percentile"] < scales["minmax"] / 10
