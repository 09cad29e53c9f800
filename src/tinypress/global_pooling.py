"""The mean over all positions of a feature map as what it is: ``GlobalAveragePool``.

PyTorch's exporter writes ``AdaptiveAvgPool2d(1)`` as a ``ReduceMean`` over the last dimensions, for which no runtime
has an integer kernel: between integers it would be computed in float, in another layout than its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import helper, numpy_helper

from tinypress.onnx_shapes import shapes_of

# what is [N, C, positions] where its first input is
_KEEP = frozenset(
    {
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Clip",
        "Concat",
        "HardSwish",
        "LeakyRelu",
        "MaxPool",
        "Mul",
        "Relu",
        "Sigmoid",
    }
)


def with_global_pooling(proto: onnx.ModelProto) -> onnx.ModelProto:
    """``proto``, changed in place: means over all positions of what a convolution made, [N, C, 1, ...], are poolings.

    Other means (over tokens, over features as in a norm, or that drop their dimensions) stay.
    """
    graph = proto.graph
    makers = {node.output[0]: node for node in graph.node}
    stored = {tensor.name: tensor for tensor in graph.initializer}
    means = [
        node
        for node in graph.node
        if node.op_type == "ReduceMean"
        and len(node.input) > 1
        and node.input[1] in stored
        and all(each.i for each in node.attribute if each.name == "keepdims")
        and _is_a_map(node.input[0], makers)
    ]
    shapes = shapes_of(proto) if means else {}
    for node in means:
        rank = len(shapes.get(node.input[0], ()))  # 0 where it is not known
        axes = numpy_helper.to_array(stored[node.input[1]]).ravel()
        if rank > 2 and sorted(axis % rank for axis in axes.tolist()) == list(range(2, rank)):
            node.CopyFrom(helper.make_node("GlobalAveragePool", [node.input[0]], list(node.output)))
    return proto


def _is_a_map(name: str, makers: Mapping[str, onnx.NodeProto]) -> bool:
    """Whether a convolution made the value, or what it is the sum, product or chain of begins with one."""
    node = makers.get(name)
    while node is not None and node.op_type in _KEEP:
        node = makers.get(node.input[0])
    return node is not None and node.op_type == "Conv"
