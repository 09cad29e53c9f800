"""The mean over all positions of a feature map as what it is: ``GlobalAveragePool``.

PyTorch's exporter writes ``AdaptiveAvgPool2d(1)`` as a ``ReduceMean`` over the last dimensions, for which no runtime
has an integer kernel: between integers it would be computed in float, in another layout than its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import helper, numpy_helper

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
    for node in graph.node:
        if node.op_type != "ReduceMean" or len(node.input) < 2 or node.input[1] not in stored:
            continue
        conv = _convolution(node.input[0], makers)
        keeps = all(each.i for each in node.attribute if each.name == "keepdims")
        if conv is None or not keeps:
            continue
        rank = _positions(conv, stored) + 2
        axes = numpy_helper.to_array(stored[node.input[1]]).ravel() % rank
        if sorted(axes.tolist()) == list(range(2, rank)):
            pooling = helper.make_node("GlobalAveragePool", [node.input[0]], list(node.output))
            node.CopyFrom(pooling)
    return proto


def _convolution(name: str, makers: Mapping[str, onnx.NodeProto]) -> onnx.NodeProto | None:
    """The convolution that made the value, or the first of those that it is the sum of."""
    node = makers.get(name)
    while node is not None and node.op_type in _KEEP:
        node = makers.get(node.input[0])
    return node if node is not None and node.op_type == "Conv" else None


def _positions(conv: onnx.NodeProto, stored: Mapping[str, onnx.TensorProto]) -> int:
    """How many dimensions of positions it has, by its kernel."""
    for each in conv.attribute:
        if each.name == "kernel_shape":
            return len(each.ints)
    weight = stored.get(conv.input[1])
    return len(weight.dims) - 2 if weight is not None else 0
