"""What ONNX Runtime computes in integers, read off the graph that it makes of a file."""

from __future__ import annotations

import onnx

INTEGER_KERNELS = frozenset(
    {
        "ConvInteger",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "QGemm",
        "QLinearAdd",
        "QLinearAveragePool",
        "QLinearConcat",
        "QLinearConv",
        "QLinearGlobalAveragePool",
        "QLinearLeakyRelu",
        "QLinearMatMul",
        "QLinearMul",
        "QLinearSigmoid",
        "QLinearSoftmax",
    }
)


def read_by_integer_kernels(optimized: onnx.GraphProto) -> frozenset[str]:
    """Names of all that an integer kernel of an optimized graph reads: weights, and integers between the layers."""
    return frozenset(
        name for node in optimized.node if node.op_type in INTEGER_KERNELS for name in node.input if name
    )


def written_by_integer_kernels(optimized: onnx.GraphProto) -> frozenset[str]:
    """Names of all values that an integer kernel of an optimized graph writes."""
    return frozenset(
        name for node in optimized.node if node.op_type in INTEGER_KERNELS for name in node.output if name
    )
