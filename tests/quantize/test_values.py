"""Which values become integers and with which scale, on a small graph written by hand.

x [B, 2] -> Gemm a -> Relu r -> Gemm b -> Add(., r) = s -> Reshape f -> Gemm c -> y
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tinypress.errors import DataError, InputError
from tinypress.quantize.values import calibrate, observed_names
from tinypress.task import Split

WEIGHTS = ("a.w", "b.w", "c.w")


def graph(scale: float = 1.0) -> onnx.ModelProto:
    """All weights are the identity times ``scale``, all biases 0, but that b halves."""
    eye = scale * np.eye(2, dtype=np.float32)
    tensors = {
        "a.w": eye,
        "b.w": eye / 2,
        "c.w": eye,
        "bias": np.zeros(2, np.float32),
        "shape": np.array([-1, 2]),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "a.w", "bias"], ["a"], transB=1),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Gemm", ["r", "b.w", "bias"], ["b"], transB=1),
        helper.make_node("Add", ["b", "r"], ["s"]),
        helper.make_node("Reshape", ["s", "shape"], ["f"]),
        helper.make_node("Gemm", ["f", "c.w", "bias"], ["y"], transB=1),
    ]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def samples(low: float, high: float, count: int = 100) -> Split:
    """The ends of the range lie in the first of several batches."""
    x = torch.full((count, 2), (low + high) / 2)
    x[3, 0], x[4, 1] = low, high
    return Split((x,), torch.zeros(count))


def test_inputs_and_outputs_of_integer_kernels_are_observed() -> None:
    # not a, which its Relu clamps; not f, which passes s on; not y, which stays float
    assert observed_names(graph().graph, WEIGHTS) == ("x", "r", "b", "s")
    assert observed_names(graph().graph, ("c.w",)) == ("b", "r", "s")


def test_scale_and_zero_point_come_from_all_the_samples() -> None:
    values = calibrate(graph(), WEIGHTS, samples(-2.0, 4.0))
    assert set(values) == {"x", "r", "b", "s", "f"}
    for name, low, high in (("x", -2.0, 4.0), ("r", 0.0, 4.0), ("b", 0.0, 2.0), ("s", 0.0, 6.0)):
        assert values[name].scale == pytest.approx((high - low) / 255)
        assert values[name].zero_point == round(-low / values[name].scale)
        assert values[name].bits == 8
    assert values["x"].zero_point == 85
    assert values["f"] == values["s"]  # a shape operator passes the integers through


@pytest.mark.parametrize(("low", "high", "zero_point"), [(1.0, 3.0, 0), (-3.0, -1.0, 255)])
def test_the_range_is_widened_to_hold_zero(low: float, high: float, zero_point: int) -> None:
    found = calibrate(graph(), WEIGHTS, samples(low, high))["x"]
    assert found.scale == pytest.approx(3 / 255)
    assert found.zero_point == zero_point


def test_a_value_that_is_always_zero_has_a_scale_of_one() -> None:
    values = calibrate(graph(), WEIGHTS, samples(-3.0, -1.0))
    assert (values["r"].scale, values["r"].zero_point) == (1.0, 0)


def test_a_value_that_overflows_is_named() -> None:
    with pytest.raises(DataError, match="'r' became NaN or infinite"):
        calibrate(graph(1e38), WEIGHTS, samples(0.0, 100.0))


def test_a_range_is_chosen_for_single_values_by_layer_or_by_value() -> None:
    x = samples(-2.0, 4.0)
    usual = calibrate(graph(), WEIGHTS, x)
    by_layer = calibrate(graph(), WEIGHTS, x, other_ranges={"a.w": "percentile"}, percentile=0.9)
    by_value = calibrate(graph(), WEIGHTS, x, other_ranges={"r": "percentile"}, percentile=0.9)
    assert by_layer == by_value  # the kernel of layer a makes r
    assert {name for name in usual if usual[name] != by_layer[name]} == {"r"}
    assert by_layer["r"].scale == pytest.approx(1 / 255, rel=0.01)
    assert calibrate(graph(), WEIGHTS, x, "percentile", {"a.w": "minmax"}, 0.9)["r"] == usual["r"]
    with pytest.raises(InputError, match=r"'c' makes no value that is quantized.*\['a.w', 'b.w'\]"):
        calibrate(graph(), WEIGHTS, x, other_ranges={"c": "mse"})


def test_only_floats_are_calibrated_beside_large_weights() -> None:
    weight = np.random.default_rng(0).normal(size=(40, 40)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Add", ["h", "x"], ["s"]),
        helper.make_node("Shape", ["s"], ["sizes"]),
        helper.make_node("Shape", ["x"], ["wanted"]),
        helper.make_node("Add", ["sizes", "wanted"], ["both"]),
        helper.make_node("Sub", ["both", "sizes"], ["same"]),
        helper.make_node("Reshape", ["s", "same"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    ]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 40])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 40])],
        [numpy_helper.from_array(weight, "w")],
    )
    proto = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    x = torch.randn(50, 40, generator=torch.Generator().manual_seed(0))
    values = calibrate(proto, ("w",), Split((x,), torch.zeros(50)))
    assert set(values) == {"x", "h", "s", "r"}
    assert values["h"].scale == pytest.approx(float(np.ptp(x.numpy() @ weight)) / 255, rel=1e-5)
