"""Pointwise convolutions of many channels as products of matrices, for processors with AMX.

ONNX Runtime has AMX in its products of matrices and not in its convolutions. A 1x1 convolution is one of
[N * H * W, C] by [C, outputs], of the same integers; from about 480 channels on the matrix kernel takes two thirds to
half of the time, the nodes that change the shape included.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tinypress.facts import QuantPlan
from tinypress.onnx_shapes import Shapes
from tinypress.quantize.fused import Fused, fused_nodes
from tinypress.quantize.reference.windows import attributes, automatic_padding, whole_numbers
from tinypress.ship.moved import Around, Moved, put

LEAST_CHANNELS = 480


def multiply_deep(graph: onnx.GraphProto, plan: QuantPlan, shapes: Shapes) -> QuantPlan:
    """Make deep pointwise convolutions of ``graph`` a ``Gemm``, in place; the plan of the changed graph.

    ``shapes`` are those of its values, with 0 for what only the run will tell.
    """
    readers = Counter(name for node in graph.node for name in node.input)
    weights, moves = dict(plan.weights), []
    for kernel in fused_nodes(graph, plan.weights):
        node = graph.node[kernel.nodes[0]]
        if not _is_deep(node, kernel, plan) or readers[node.input[1]] > 1:
            continue
        weight = plan.weights[node.input[1]]
        positions = list(shapes.get(kernel.output, ()))[2:]
        if len(positions) == len(weight.shape) - 2 and min(positions) > 0:
            weights[node.input[1]] = replace(weight, shape=weight.shape[:2])
            moves.append(_as_product(graph, kernel, plan, positions))
    return replace(plan, weights=weights, values={**plan.values, **put(graph, moves)}) if moves else plan


def _is_deep(node: onnx.NodeProto, kernel: Fused, plan: QuantPlan) -> bool:
    rounded = {*kernel.inputs, kernel.output} <= set(plan.values)
    if kernel.kind != "product" or node.op_type != "Conv" or node.input[1] != kernel.weight or not rounded:
        return False
    _, channels, *places = plan.weights[node.input[1]].shape
    given = attributes(node)
    plain = (
        set(whole_numbers(given.get("strides"), [1])) == {1}
        and not any(whole_numbers(given.get("pads"), [0]))
        and given.get("group", 1) == 1
        and automatic_padding(node) in (b"", b"VALID")
    )
    return plain and set(places) == {1} and channels >= LEAST_CHANNELS


def _as_product(graph: onnx.GraphProto, kernel: Fused, plan: QuantPlan, positions: list[int]) -> Around:
    node = graph.node[kernel.nodes[0]]
    outputs, channels = plan.weights[node.input[1]].shape[:2]
    places = range(2, 2 + len(positions))
    before = Moved(kernel.inputs[0], plan.values[kernel.inputs[0]], f"{kernel.output}:before")
    before.transpose(0, *places, 1).reshape(-1, channels)
    after = Moved(f"{kernel.output}:rows", plan.values[kernel.output], f"{kernel.output}:after")
    after.reshape(-1, *positions, outputs).transpose(0, 1 + len(positions), *range(1, 1 + len(positions)))
    after.named(kernel.output)
    product = helper.make_node("Gemm", [before.end, *node.input[1:]], list(node.output), transB=1)
    node.CopyFrom(product)
    graph.node[kernel.nodes[-1]].output[0] = after.begin
    for tensor in graph.initializer:
        if tensor.name == kernel.weight:
            matrix = numpy_helper.to_array(tensor).reshape(outputs, channels)
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(matrix), tensor.name))
    return Around(kernel.nodes[0], kernel.nodes[-1], before, after)
