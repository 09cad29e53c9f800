"""What the runtime computes in float between integers is found, with its layer and the reason."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tinypress.measure.artifact import read_onnx
from tinypress.measure.islands import Island

Nodes = list[onnx.NodeProto]


def pair(name: str) -> Nodes:
    """``name`` to 8 bits and back."""
    return [
        helper.make_node("QuantizeLinear", [name, "s", "z"], [f"{name}:q"]),
        helper.make_node("DequantizeLinear", [f"{name}:q", "s", "z"], [f"{name}:d"]),
    ]


CONSTANTS: Mapping[str, np.ndarray] = {
    "s": np.array(0.1, np.float32),
    "z": np.array(128, np.uint8),
    "up.weight": np.full((4, 3, 3, 3), 130, np.uint8),
    "down.weight": np.full((2, 4, 1, 1), 120, np.uint8),
}


def weight(layer: str) -> onnx.NodeProto:
    return helper.make_node("DequantizeLinear", [f"{layer}.weight", "s", "z"], [f"{layer}.weight:d"])


def islands(nodes: Nodes, path: Path) -> tuple[Island, ...]:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in CONSTANTS.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (path / "a.onnx").write_bytes(model.SerializeToString())
    facts = read_onnx(path / "a.onnx", (np.ones((1, 3, 6, 6), np.float32),))
    assert facts.macs == 16 * 4 * 27 + 16 * 2 * 4
    return facts.islands


def test_a_network_in_integers_has_none(tmp_path: Path) -> None:
    nodes = [
        *pair("x"), weight("up"), helper.make_node("Conv", ["x:d", "up.weight:d"], ["h"]), *pair("h"),
        weight("down"), helper.make_node("Conv", ["h:d", "down.weight:d"], ["v"]), *pair("v"),
        helper.make_node("Identity", ["v:d"], ["y"]),
    ]  # fmt: skip
    assert islands(nodes, tmp_path) == ()


def test_a_convolution_that_writes_floats_is_one(tmp_path: Path) -> None:
    nodes = [
        *pair("x"), weight("up"), helper.make_node("Conv", ["x:d", "up.weight:d"], ["h"]), *pair("h"),
        weight("down"), helper.make_node("Conv", ["h:d", "down.weight:d"], ["y"]),
    ]  # fmt: skip
    (found,) = islands(nodes, tmp_path)
    assert (found.layer, found.operator) == ("down", "Conv")
    assert "its output is the network's" in found.reason


def test_a_layer_that_reads_floats_is_one(tmp_path: Path) -> None:
    nodes = [
        weight("up"), helper.make_node("Conv", ["x", "up.weight:d"], ["h"]), helper.make_node("Tanh", ["h"], ["t"]),
        *pair("t"), weight("down"), helper.make_node("Conv", ["t:d", "down.weight:d"], ["v"]), *pair("v"),
        helper.make_node("Identity", ["v:d"], ["y"]),
    ]  # fmt: skip
    assert islands(nodes, tmp_path) == (Island("up", "Conv", "its input is float"),)


def test_what_has_a_kernel_and_is_not_fused_is_named_by_what_it_follows(tmp_path: Path) -> None:
    nodes = [
        *pair("x"), weight("up"), helper.make_node("Conv", ["x:d", "up.weight:d"], ["h"]), *pair("h"),
        # the sum is also the answer of a Tanh, so that the runtime needs it in float
        helper.make_node("Add", ["h:d", "h:d"], ["a"]), *pair("a"), helper.make_node("Tanh", ["a"], ["t"]),
        weight("down"), helper.make_node("Conv", ["a:d", "down.weight:d"], ["v"]), *pair("v"),
        helper.make_node("Concat", ["v:d", "t"], ["y"], axis=1),
    ]  # fmt: skip
    (found,) = islands(nodes, tmp_path)
    assert (found.layer, found.operator) == ("Add after up", "Add")
    assert "no integer kernel" in found.reason


def test_a_float_file_has_none(tmp_path: Path) -> None:
    nodes = [
        weight("up"), helper.make_node("Conv", ["x", "up.weight:d"], ["h"]),
        weight("down"), helper.make_node("Conv", ["h", "down.weight:d"], ["y"]),
    ]  # fmt: skip
    assert islands(nodes, tmp_path) == ()
