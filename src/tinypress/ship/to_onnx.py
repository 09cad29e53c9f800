"""Writes a network as ONNX: float as it is, or with the integers, scales and zero points of its plan.

Weights alone are written by ``low_bits.py``. With activations, the integer file is in quantize-dequantize form,
which ONNX Runtime fuses into integer kernels. Every scale comes from the plan; the only numbers made here are the
biases, whose scale is defined as the product of those of input and weight (Jacob et al. 2018, arXiv:1712.05877,
eq. 7 and §2.4).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor

from tinypress.bits import unpack
from tinypress.errors import InputError
from tinypress.facts import Compressed, QuantizedWeight, QuantPlan
from tinypress.files import write_bytes
from tinypress.float_onnx import to_float_onnx
from tinypress.ship import low_bits

_PRODUCTS = ("Conv", "Gemm", "MatMul")


def write_onnx(path: Path, compressed: Compressed, example_inputs: tuple[Tensor, ...]) -> None:
    """Write ``compressed`` to ``path``, whole or not at all.

    Raises:
        InputError: the plan has activations beside weights of other than 8 symmetric bits, or weights that are not
            those of the exported graph.
        ModelError: the network cannot be exported.
        RunError: the file cannot be written.
    """
    write_bytes(path, to_onnx(compressed, example_inputs).SerializeToString(deterministic=True))


def to_onnx(compressed: Compressed, example_inputs: tuple[Tensor, ...]) -> onnx.ModelProto:
    """The ONNX form of ``compressed``; see ``write_onnx``."""
    plan = compressed.plan
    if plan is None:
        return to_float_onnx(compressed.model, example_inputs)
    call = f"to_onnx({type(compressed.model).__name__})"
    if not plan.values:
        proto = to_float_onnx(compressed.model, example_inputs, opset=low_bits.OPSET)
        return low_bits.with_low_bits(call, proto, plan)
    for name, weight in plan.weights.items():
        if weight.bits != 8 or weight.scheme != "symmetric" or weight.group_size is not None:
            raise InputError(
                call,
                f"{name!r} has {weight.bits} {weight.scheme} bits and {len(plan.values)} calibrated values",
                'Ship it as an archive (ship = ["archive"]), or quantize the weights alone',
            )
    return with_integers(to_float_onnx(compressed.model, example_inputs), plan)


def with_integers(proto: onnx.ModelProto, plan: QuantPlan) -> onnx.ModelProto:
    """``proto``, a float graph, changed in place: its weights and values are the integers of ``plan``."""
    graph = proto.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    added: dict[str, onnx.TensorProto] = {}
    nodes: list[onnx.NodeProto] = []

    def constant(name: str, array: NDArray[np.generic]) -> str:
        added[name] = numpy_helper.from_array(array, name)
        return name

    def quantized(name: str) -> list[onnx.NodeProto]:
        value = plan.values[name]
        scale = constant(f"s:{value.scale!r}", np.array(value.scale, np.float32))
        zero = constant(f"z:{value.zero_point}", np.array(value.zero_point, np.uint8))
        return [
            helper.make_node("QuantizeLinear", [name, scale, zero], [f"{name}:q"]),
            helper.make_node("DequantizeLinear", [f"{name}:q", scale, zero], [f"{name}:d"]),
        ]

    for value in graph.input:
        if value.name in plan.values:
            nodes += quantized(value.name)
    for node in graph.node:
        if node.op_type in _PRODUCTS and len(node.input) > 1 and node.input[1] in plan.weights:
            nodes += _product_constants(node, plan, constants, added)
        for position, name in enumerate(node.input):
            if name in plan.values:
                node.input[position] = f"{name}:d"
        nodes.append(node)
        for name in node.output:
            if name in plan.values:
                nodes += quantized(name)
    graph.ClearField("node")
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for name, tensor in constants.items() if name in used and name not in added]
    graph.ClearField("initializer")
    graph.initializer.extend([*kept, *added.values()])
    return proto


def _product_constants(
    node: onnx.NodeProto,
    plan: QuantPlan,
    constants: dict[str, onnx.TensorProto],
    added: dict[str, onnx.TensorProto],
) -> list[onnx.NodeProto]:
    """Put integer weight and bias into ``added``, make ``node`` read them, return what dequantizes them."""
    name = node.input[1]
    weight = plan.weights[name]
    axis = weight.axis
    integers = unpack(weight.packed, 8, int(np.prod(weight.shape)), signed=True).reshape(weight.shape).numpy()
    if node.op_type == "MatMul":  # the exporter stores x @ W.T for a Linear without bias
        integers = np.ascontiguousarray(integers.T)
        axis = None if axis is None else 1 - axis
    scale = _scalar_or_vector(weight)
    added[name] = numpy_helper.from_array((integers.astype(np.int16) + 128).astype(np.uint8), name)
    added[f"{name}:s"] = numpy_helper.from_array(scale, f"{name}:s")
    added[f"{name}:z"] = numpy_helper.from_array(np.full(scale.shape, 128, np.uint8), f"{name}:z")
    attributes = {} if axis is None else {"axis": axis}
    made = [
        helper.make_node("DequantizeLinear", [name, f"{name}:s", f"{name}:z"], [f"{name}:d"], **attributes)
    ]
    node.input[1] = f"{name}:d"
    if len(node.input) > 2 and node.input[2] in constants and node.input[0] in plan.values:
        bias = node.input[2]
        scale = np.asarray(np.float32(plan.values[node.input[0]].scale) * scale, np.float32)
        real = numpy_helper.to_array(constants[bias]).astype(np.float64)
        rounded = np.clip(np.rint(real / scale), -(2**31) + 1, 2**31 - 1).astype(np.int32)
        added[bias] = numpy_helper.from_array(rounded, bias)
        added[f"{bias}:s"] = numpy_helper.from_array(scale, f"{bias}:s")
        attributes = {} if axis is None else {"axis": 0}
        made.append(helper.make_node("DequantizeLinear", [bias, f"{bias}:s"], [f"{bias}:d"], **attributes))
        node.input[2] = f"{bias}:d"
    return made


def _scalar_or_vector(weight: QuantizedWeight) -> NDArray[np.float32]:
    scale: NDArray[np.float32] = weight.scale.numpy().astype(np.float32)
    return scale.reshape(()) if weight.axis is None else scale
