"""What ONNX Runtime computes in integers, read off the graph that it makes of a file."""

from __future__ import annotations

from collections.abc import Collection

import onnx

INTEGER_KERNELS = frozenset(
    {
        "ConvInteger",
        "DynamicQuantizeLSTM",
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


def reads_weight(read: Collection[str], weight: str) -> bool:
    """Whether ``weight`` is among what integer kernels ``read``: itself, or its scales where it was turned before."""
    return weight in read or f"{weight}:s" in read


def written_by_integer_kernels(optimized: onnx.GraphProto) -> frozenset[str]:
    """Names of all values that an integer kernel of an optimized graph writes."""
    return frozenset(
        name for node in optimized.node if node.op_type in INTEGER_KERNELS for name in node.output if name
    )
