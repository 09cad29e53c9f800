"""What is read off an ONNX file, against counts by hand on graphs written by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tinypress.errors import ArtifactError
from tinypress.measure.artifact import ArtifactFacts, read_onnx

Array = NDArray[np.generic]


def facts(
    path: Path, nodes: Sequence[onnx.NodeProto], tensors: Mapping[str, Array], shape: tuple[int, ...]
) -> ArtifactFacts:
    """Those of the file with ``nodes`` from x to y; ``shape`` is that of x, without the batch."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    file = path / "a.onnx"
    file.write_bytes(model.SerializeToString())
    return read_onnx(file, (np.ones((1, *shape), np.float32),))


def ones(*shape: int) -> NDArray[np.float32]:
    return np.ones(shape, np.float32)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_grouped_convolution_multiplies_its_own_channels_only(tmp_path: Path, groups: int) -> None:
    nodes = [helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["y"], group=groups)]
    tensors = {"conv.weight": ones(8, 4 // groups, 3, 3), "conv.bias": ones(8)}
    found = facts(tmp_path, nodes, tensors, (4, 6, 7))
    assert found.macs == found.macs_float == 8 * (4 * 5) * (4 // groups) * 9  # outputs of 4 x 5
    assert found.parameters == 8 * (4 // groups) * 9 + 8
    assert found.layers[0].macs == found.macs
    assert found.activation_bytes == 4 * 4 * 6 * 7
    assert found.float_layers == ("conv",)


def test_a_transposed_convolution_multiplies_each_input(tmp_path: Path) -> None:
    nodes = [helper.make_node("ConvTranspose", ["x", "up.weight"], ["y"], strides=[2])]
    assert facts(tmp_path, nodes, {"up.weight": ones(3, 5, 4)}, (3, 10)).macs == 3 * 10 * 5 * 4


def test_linear_layers_in_both_forms_are_out_by_in(tmp_path: Path) -> None:
    weight = ones(5, 7)
    weight[0, :4] = 0
    nodes = [
        helper.make_node("Gemm", ["x", "a.weight", "a.bias"], ["h"], transB=1),
        helper.make_node("MatMul", ["h", "b.weight"], ["y"]),
    ]
    tensors = {"a.weight": weight, "a.bias": ones(5), "b.weight": ones(5, 3)}
    found = facts(tmp_path, nodes, tensors, (7,))
    assert [(layer.name, layer.weight_shape, layer.macs) for layer in found.layers] == [
        ("a", (5, 7), 35),
        ("b", (3, 5), 15),
    ]
    assert (found.parameters, found.nonzero_parameters) == (35 + 5 + 15, 55 - 4)
    assert found.layers[0].nonzero_parameters == 36
    assert found.weight_bytes == 4 * 55
    assert found.layers[0].histogram.counts[0] == 4


def quantized(weight: NDArray[np.uint8]) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    """One linear layer [2, 3] in quantize-dequantize form, as it ships."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["x:q"]),
        helper.make_node("DequantizeLinear", ["x:q", "s", "z"], ["x:d"]),
        helper.make_node("DequantizeLinear", ["a.weight", "ws", "wz"], ["a.weight:d"], axis=0),
        helper.make_node("DequantizeLinear", ["a.bias", "bs"], ["a.bias:d"], axis=0),
        helper.make_node("Gemm", ["x:d", "a.weight:d", "a.bias:d"], ["y"], transB=1),
    ]
    tensors: dict[str, Array] = {
        "s": np.array(0.5, np.float32),
        "z": np.array(3, np.uint8),
        "a.weight": weight,
        "ws": np.array([0.5, 0.25], np.float32),
        "wz": np.array([128, 100], np.uint8),
        "a.bias": np.array([0, 7], np.int32),
        "bs": np.array([0.25, 0.125], np.float32),
    }
    return nodes, tensors


def test_integers_count_once_and_their_scales_are_no_parameters(tmp_path: Path) -> None:
    weight = np.array([[128, 130, 128], [100, 104, 128]], np.uint8)  # real: [0, 1, 0], [0, 1, 7]
    found = facts(tmp_path, *quantized(weight), (3,))
    (layer,) = found.layers
    assert (found.parameters, found.nonzero_parameters) == (6 + 2, 3 + 1)
    assert (layer.name, layer.bits, layer.parameters, layer.bytes) == ("a", 8, 8, 6 + 4 * 2)
    assert (found.macs_int8, found.macs_float, found.float_layers) == (6, 0, ())
    assert found.activation_bytes == 3
    assert found.weight_bytes == 6 + 8
    assert (layer.histogram.low, layer.histogram.high) == (0.0, 7.0)


def test_integer_weights_read_by_a_float_product_are_computed_in_float(tmp_path: Path) -> None:
    nodes, tensors = quantized(np.full((2, 3), 129, np.uint8))
    nodes[-1].input[0] = "x"
    kept = {name: array for name, array in tensors.items() if name not in ("s", "z")}
    found = facts(tmp_path, nodes[2:], kept, (3,))
    assert (found.macs_int8, found.macs_float, found.float_layers) == (0, 6, ("a",))
    assert found.layers[0].bits == 8


def test_a_weight_that_two_products_share_is_stored_once(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "a.weight"], ["h"], transB=1),
        helper.make_node("Gemm", ["h", "a.weight"], ["y"], transB=1),
    ]
    found = facts(tmp_path, nodes, {"a.weight": ones(4, 4)}, (4,))
    assert (found.parameters, found.weight_bytes, found.macs) == (16, 64, 32)
    assert sum(layer.parameters for layer in found.layers) == 16


def test_constants_of_shapes_are_no_parameters(tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    found = facts(tmp_path, nodes, {"shape": np.array([-1, 3])}, (3,))
    assert (found.parameters, found.layers, found.macs) == (0, (), 0)


def test_a_product_of_two_activations_has_macs_and_no_weight(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["x", "t"], ["y"]),
    ]
    found = facts(tmp_path, nodes, {}, (5, 3))
    assert (found.macs, found.parameters, found.layers) == (5 * 5 * 3, 0, ())


@pytest.mark.parametrize("data", [b"", b"no such thing", bytes(range(256))])
def test_what_is_no_onnx_file_is_told(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "a.onnx"
    file.write_bytes(data)
    with pytest.raises(ArtifactError, match="Write the"):
        read_onnx(file, (ones(1, 3),))
