"""Which nodes of the float graph ONNX Runtime computes together in one integer kernel.

    product    Conv, Gemm or MatMul by a weight of the plan, with the bias behind it and the Relu or Clip behind that
    sum, multiply, concat, average, table    Add, Mul, Concat, the average poolings; Sigmoid and LeakyRelu
    pass       shape operators and maximum pooling: they move integers and keep their scale
    dynamic, recurrent    a product, an LSTM: its input becomes integers at run time, what it writes is float

Calibration, the reference and the check of the shipped file read the same list.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx
from onnx import numpy_helper

from tinypress.facts import QuantizedWeight

Kind = Literal["product", "sum", "multiply", "concat", "average", "table", "pass", "dynamic", "recurrent"]

PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})
_KINDS: Mapping[str, Kind] = {
    "Add": "sum",
    "Concat": "concat",
    "GlobalAveragePool": "average",
    "AveragePool": "average",
    "Mul": "multiply",
    "Sigmoid": "table",
    "LeakyRelu": "table",
}
# these have a kernel, but it pays only between kernels: elsewhere it would round floats that stay floats
_BETWEEN = frozenset({"Mul", "Sigmoid", "LeakyRelu"})
_CLAMPS = frozenset({"Relu", "Clip"})  # the runtime leaves them out between integers
_PASS_THROUGH = frozenset({"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True)
class Fused:
    """Nodes of a graph (by place) that one kernel computes: its activations, and the value that it writes.

    ``weight`` and ``bias`` are names of constants; ``bias`` may stand in the product itself or behind it.
    ``low`` and ``high`` are the bounds of a Relu or Clip that is part of a product. ``rounds``, of ``needed_nodes``,
    tells whether what it writes becomes integers: a product by a matrix writes floats where only floats are read.
    """

    kind: Kind
    nodes: tuple[int, ...]
    inputs: tuple[str, ...]
    output: str
    weight: str | None = None
    bias: str | None = None
    low: float = -np.inf
    high: float = np.inf
    rounds: bool = True


def has_integer_kernel(weight: QuantizedWeight) -> bool:
    """Whether integer kernels take this weight: 8 symmetric bits, one scale for all or for each output channel."""
    plain = weight.group_size is None and weight.input_scale is None and weight.axis in (None, 0)
    return weight.bits == 8 and weight.scheme == "symmetric" and plain


def fused_nodes(graph: onnx.GraphProto, weights: Collection[str]) -> tuple[Fused, ...]:
    """The kernels that can compute in integers where all their activations are, in graph order.

    ``weights`` are the names of the weights that are integers.
    """
    constants = constants_of(graph)
    readers: dict[str, list[int]] = {}
    for place, node in enumerate(graph.node):
        for name in node.input:
            readers.setdefault(name, []).append(place)
    outputs = {value.name for value in graph.output}
    turned = turned_weights(graph, weights)
    found: list[Fused] = []
    integers: set[str] = set()  # values that are read or written by kernels so far, or only moved from such
    for place, node in enumerate(graph.node):
        activations = tuple(
            name for name in node.input if name and name not in constants and name not in turned
        )
        if node.op_type in _PASS_THROUGH and activations:
            found.append(Fused("pass", (place,), activations[:1], node.output[0]))
            integers |= {node.output[0]} if node.input[0] in integers else set()
            continue
        if node.op_type in PRODUCTS:
            weight = None if len(node.input) < 2 else turned.get(node.input[1], node.input[1])
            if len(activations) != 1 or weight not in weights:
                continue
            kernel = _product(graph, place, activations, readers, constants, outputs, turned)
        else:
            kind = _KINDS.get(node.op_type)
            # a sum with a constant has no integer kernel
            if kind is None or len(activations) != len(node.input):
                continue
            if node.op_type in _BETWEEN and (
                not integers.issuperset(activations) or node.output[0] in outputs
            ):
                continue
            kernel = Fused(kind, (place,), activations, node.output[0])
        found.append(kernel)
        integers |= {*kernel.inputs, kernel.output}
    return tuple(found)


def needed_nodes(graph: onnx.GraphProto, weights: Collection[str]) -> tuple[Fused, ...]:
    """``fused_nodes`` without those that no product needs: to round what only floats read costs quality and time, most
    of all in the residual sums of transformers, and in their scores with a mask of -3e38."""
    kernels = fused_nodes(graph, weights)
    by_place = {kernel.nodes[0]: kernel for kernel in kernels}
    of_products = {place for kernel in kernels for place in kernel.nodes[1:]}
    needed: set[str] = set()
    kept: list[Fused] = []
    for place in reversed(range(len(graph.node))):
        node, kernel = graph.node[place], by_place.get(place)
        if kernel is None:
            if node.op_type in _CLAMPS and place not in of_products and node.output[0] in needed:
                needed.add(node.input[0])
            continue
        read = kernel.output in needed
        if kernel.kind == "product" and node.op_type != "Conv":
            kernel = replace(kernel, rounds=read)
        if read or kernel.kind == "product":
            needed |= set(kernel.inputs)
        if read or kernel.kind in ("product", "pass"):
            kept.append(kernel)
    return tuple(reversed(kept))


def dynamic_nodes(graph: onnx.GraphProto, weights: Collection[str]) -> tuple[Fused, ...]:
    """The kernels that round their input at run time, in graph order; ``weights`` are the names of theirs."""
    found = []
    for kernel in fused_nodes(graph, weights):
        if kernel.kind == "product" and graph.node[kernel.nodes[0]].input[1] == kernel.weight:
            found.append(replace(kernel, kind="dynamic"))
    for place, node in enumerate(graph.node):
        if node.op_type == "LSTM" and {node.input[1], node.input[2]} <= set(weights):
            output = next(name for name in node.output if name)
            found.append(Fused("recurrent", (place,), (node.input[0],), output, node.input[1]))
    return tuple(sorted(found, key=lambda kernel: kernel.nodes[0]))


def _product(
    graph: onnx.GraphProto,
    place: int,
    activations: tuple[str, ...],
    readers: Mapping[str, list[int]],
    constants: Mapping[str, onnx.TensorProto],
    outputs: Collection[str],
    turned: Mapping[str, str],
) -> Fused:
    node = graph.node[place]
    nodes = [place]
    bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
    result, low, high = node.output[0], -np.inf, np.inf

    def only_reader() -> onnx.NodeProto | None:
        after = readers.get(result, [])
        return graph.node[after[0]] if len(after) == 1 and result not in outputs else None

    after = only_reader()
    if node.op_type == "MatMul" and after is not None and after.op_type == "Add":
        bias = next((name for name in after.input if name in constants), None)
        if bias is not None:  # the kernel adds the bias before it rounds
            nodes.append(readers[result][0])
            result = after.output[0]
            after = only_reader()
    bounds = None if after is None else _bounds(after, constants)
    if after is not None and bounds is not None:
        nodes.append(readers[result][0])
        result, (low, high) = after.output[0], bounds
    weight = turned.get(node.input[1], node.input[1])
    return Fused("product", tuple(nodes), activations, result, weight, bias, low, high)


def _bounds(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> tuple[float, float] | None:
    """Least and largest value that ``node`` lets through, where it does nothing else."""
    if node.op_type == "Relu":
        return 0.0, np.inf
    if node.op_type != "Clip":
        return None
    bounds = [-np.inf, np.inf]
    for place, name in enumerate(node.input[1:3]):
        if name and name not in constants:
            return None
        if name:
            bounds[place] = float(numpy_helper.to_array(constants[name]))
    # the kernel clamps to its 256 integers: they begin at 0 where the values do, and anywhere else not at the bound
    return (bounds[0], bounds[1]) if bounds[0] == 0 < bounds[1] else None


def turned_weights(graph: onnx.GraphProto, weights: Collection[str]) -> dict[str, str]:
    """For each value that is a weight transposed by a node (a table that is also a product's weight): that weight."""
    return {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Transpose" and node.input[0] in weights
    }


def constants_of(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Tensors that the graph stores, as initializers or as Constant nodes."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            stored |= {name: a.t for name in node.output for a in node.attribute if a.name == "value"}
    return stored


def origins(graph: onnx.GraphProto) -> dict[str, str]:
    """For each value that only passes integers through: the value it passes on."""
    origin: dict[str, str] = {}
    for node in graph.node:
        if node.op_type in _PASS_THROUGH:
            origin[node.output[0]] = origin.get(node.input[0], node.input[0])
    return origin
