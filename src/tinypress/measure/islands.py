"""Float islands: what an integer file asks for in integers and ONNX Runtime computes in float, and why.

Read off the graph that the runtime makes of the file, where a fused kernel has replaced what it computes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from tinypress.parameter_names import layers_of_nodes
from tinypress.runtimes.fused import read_by_integer_kernels, reads_weight, written_by_integer_kernels

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_OTHERS = frozenset({"Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "Sigmoid", "LeakyRelu"})


@dataclass(frozen=True)
class Island:
    """An operator that runs in float between integers: the layer it is, or that it follows, and the reason."""

    layer: str
    operator: str
    reason: str


def float_islands(written: onnx.GraphProto, optimized: onnx.GraphProto) -> tuple[Island, ...]:
    """The islands of the file ``written``, in its order; none in a file without quantized activations."""
    stored = {tensor.name: tensor for tensor in written.initializer}
    integers = {
        name
        for name, tensor in stored.items()
        if tensor.data_type in (TensorProto.UINT8, TensorProto.INT8) and tensor.dims
    }
    quantized = {node.input[0]: node.output[0] for node in written.node if node.op_type == "QuantizeLinear"}
    if not quantized:
        return ()
    real = {node.output[0]: node.input[0] for node in written.node if node.op_type == "DequantizeLinear"}
    read, made = read_by_integer_kernels(optimized), written_by_integer_kernels(optimized)
    outputs = {value.name for value in written.output}
    names = layers_of_nodes(written)
    found = []
    for place, node in enumerate(written.node):
        weight = real.get(node.input[1], "") if len(node.input) > 1 else ""
        if node.op_type in PRODUCTS and weight in integers and not reads_weight(read, weight):
            reason = _reason(node, real, quantized, outputs, written)
            found.append(Island(names[place], node.op_type, reason))
        elif node.op_type in _OTHERS and all(name in real for name in node.input):
            answer = quantized.get(node.output[0])
            if answer is not None and answer not in made:
                found.append(Island(names[place], node.op_type, _NOT_FUSED))
    return tuple(found)


def _reason(
    node: onnx.NodeProto,
    real: Mapping[str, str],
    quantized: Mapping[str, str],
    outputs: Collection[str],
    graph: onnx.GraphProto,
) -> str:
    if node.input[0] not in real:
        return "its input is float"
    if node.output[0] in quantized:
        return _NOT_FUSED
    if node.output[0] in outputs:
        return "its output is the network's, which stays float, and a convolution has no kernel from integers to floats"
    readers = sorted({other.op_type for other in graph.node if node.output[0] in other.input})
    return f"what reads its output ({', '.join(readers)}) computes in float"


_NOT_FUSED = "the runtime has no integer kernel for it as it stands here"
