"""Layers, bits and parameters read off files with weights of few bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from tinypress.facts import QuantPlan
from tinypress.measure.artifact import ArtifactFacts, read_onnx
from tinypress.measure.packed import packed_weights
from tinypress.quantize import dequantize_layer_weights, quantize_layer_weights
from tinypress.ship.low_bits import with_low_bits


def lowered(layers: dict[str, nn.Module], nodes, shape, given=TensorProto.FLOAT, **settings):
    tensors, weights = [], {}
    for name, layer in layers.items():
        weights[name] = quantize_layer_weights(layer, **settings)
        real = dequantize_layer_weights(weights[name]).numpy()
        tensors.append(numpy_helper.from_array(real, name))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", given, ["n", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        tensors,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return with_low_bits("", proto, QuantPlan(weights)), weights


def facts(folder: Path, proto: onnx.ModelProto, shape, dtype=np.float32) -> ArtifactFacts:
    (folder / "a.onnx").write_bytes(proto.SerializeToString())
    return read_onnx(folder / "a.onnx", (np.zeros((1, *shape), dtype),))


@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
@pytest.mark.parametrize("bits", [3, 4])
def test_a_product_of_packed_weights(tmp_path: Path, scheme, bits):
    layer = nn.Linear(70, 9)
    with torch.no_grad():
        layer.weight[:, ::7] = 0
    nodes = [helper.make_node("Gemm", ["x", "fc.weight"], ["y"], transB=1)]
    proto, weights = lowered({"fc.weight": layer}, nodes, (70,), bits=bits, scheme=scheme, group_size=32)
    real = dequantize_layer_weights(weights["fc.weight"]).numpy()
    ((found, stored),) = (packed_weights(proto.graph)[0][name] for name in ("fc.weight",))
    assert np.array_equal(found, real)
    assert stored == 4
    seen = facts(tmp_path, proto, (70,))
    assert (seen.parameters, seen.nonzero_parameters) == (630, int(np.count_nonzero(real)))
    assert seen.macs == 630
    assert [(x.name, x.kind, x.weight_shape, x.bits, x.bytes) for x in seen.layers] == [
        ("fc", "MatMulNBits", (9, 70), 4, 315)
    ]
    assert seen.float_layers == seen.unpacked_layers == ()


@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
@pytest.mark.parametrize("group", [None, 5, 16])
def test_a_convolution_is_unpacked(tmp_path: Path, scheme, group):
    layer = nn.Conv2d(4, 6, 3, groups=2)
    nodes = [helper.make_node("Conv", ["x", "conv.weight"], ["y"], group=2)]
    shape = (4, 5, 6)
    proto, weights = lowered({"conv.weight": layer}, nodes, shape, bits=4, scheme=scheme, group_size=group)
    real = dequantize_layer_weights(weights["conv.weight"])
    seen = facts(tmp_path, proto, shape)
    assert (seen.parameters, seen.nonzero_parameters) == (108, int(torch.count_nonzero(real)))
    assert seen.macs == 6 * 3 * 4 * 18
    assert [(x.name, x.weight_shape, x.bits, x.bytes) for x in seen.layers] == [("conv", (6, 2, 3, 3), 4, 54)]
    assert seen.float_layers == seen.unpacked_layers == ("conv",)
    histogram = seen.layers[0].histogram
    assert histogram is not None
    assert (histogram.low, histogram.high) == (pytest.approx(real.min()), pytest.approx(real.max()))


def test_a_table_that_is_also_the_head_counts_once(tmp_path: Path):
    table = nn.Embedding(30, 45)
    nodes = [
        helper.make_node("Gather", ["t.weight", "x"], ["e"]),
        helper.make_node("Transpose", ["t.weight"], ["tt"], perm=[1, 0]),
        helper.make_node("MatMul", ["e", "tt"], ["y"]),
    ]
    proto, _ = lowered({"t.weight": table}, nodes, (3,), TensorProto.INT64, bits=4, group_size=32)
    seen = facts(tmp_path, proto, (3,), np.int64)
    assert seen.parameters == 30 * 45
    assert seen.macs == 3 * 30 * 45
    assert len(seen.layers) == 1


def test_a_table_alone_has_its_own_width(tmp_path: Path):
    nodes = [helper.make_node("Gather", ["t.weight", "x"], ["y"])]
    proto, _ = lowered(
        {"t.weight": nn.Embedding(30, 45)}, nodes, (3,), TensorProto.INT64, bits=8, group_size=32
    )
    seen = facts(tmp_path, proto, (3,), np.int64)
    assert seen.parameters == 30 * 45
    assert [(x.name, x.bits) for x in seen.layers] == [("t", 8)]
