"""Reads the float graph and the plan back out of an integer file that ``to_onnx`` wrote.

So whoever has nothing but the file can ask whether a machine computes what its integers say.
"""

from __future__ import annotations

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tinypress.bits import pack
from tinypress.facts import QuantizedValue, QuantizedWeight, QuantPlan
from tinypress.measure.packed import packed_weights
from tinypress.ship.read_dynamic import read_dynamic


def plan_of_file(written: onnx.ModelProto) -> tuple[onnx.ModelProto, QuantPlan]:
    """The float graph of a file in quantize-dequantize form, and the plan that the two make up.

    Biases come back in float64, in which a 32-bit integer times its scale is exact; products by packed weights of few
    bits as products by their real numbers. ``values`` is empty where no activation has a range of its own.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(written)
    graph = proto.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    readers = {name: node for node in graph.node for name in node.input}
    values: dict[str, QuantizedValue] = {}
    weights: dict[str, QuantizedWeight] = {}
    floats: dict[str, TensorProto] = {}
    alias: dict[str, str] = {}
    nodes = []
    packed, _ = packed_weights(graph)
    looked_up = {node.input[0] for node in graph.node if node.op_type == "Gather"}
    at_run_time = read_dynamic(graph)
    weights |= at_run_time.weights
    for node in at_run_time.nodes:
        if node.op_type == "MatMulNBits":
            name = node.input[1]
            floats[name] = numpy_helper.from_array(np.ascontiguousarray(packed[name][0].T), name)
            nodes.append(helper.make_node("MatMul", [node.input[0], name], list(node.output)))
        elif node.op_type == "QuantizeLinear" and _is_pair(node, stored):
            scale, zero = (numpy_helper.to_array(stored[name]) for name in node.input[1:3])
            values[node.input[0]] = QuantizedValue(float(scale), int(zero))
            alias[node.output[0]] = alias.get(node.input[0], node.input[0])
        elif node.op_type == "Clip" and all(name.startswith("b:") for name in node.input[1:]):
            # the writer's own, to the range that the integers have anyway
            alias[node.output[0]] = alias[node.input[0]]
        elif node.op_type == "DequantizeLinear" and node.input[0] in alias:
            alias[node.output[0]] = alias[node.input[0]]
        elif node.op_type == "DequantizeLinear" and node.input[0] in stored and _is_whole(node, stored):
            reader = readers.get(node.output[0])
            turned = reader is not None and reader.op_type == "MatMul"
            name = node.input[0] if node.input[0] not in looked_up else f"{node.input[0]}:real"
            alias[node.output[0]] = name
            real = _real(node, stored)
            if stored[node.input[0]].data_type in (TensorProto.UINT8, TensorProto.INT8):
                weights[name] = _weight(node, stored, turned)
                real = real.astype(np.float32)
            floats[name] = numpy_helper.from_array(real, name)
        else:
            nodes.append(node)
    for node in nodes:
        for place, name in enumerate(node.input):
            node.input[place] = alias.get(name, name)
    used = {name for node in nodes for name in node.input}
    floats |= at_run_time.floats
    kept = [tensor for name, tensor in {**stored, **floats}.items() if name in used]
    graph.ClearField("node")
    graph.node.extend(nodes)
    graph.ClearField("initializer")
    graph.initializer.extend(kept)
    return proto, QuantPlan(weights, values, frozenset(at_run_time.weights))


def _is_pair(node: onnx.NodeProto, stored: dict[str, TensorProto]) -> bool:
    """One scale and one unsigned zero point, as a calibrated value has."""
    parts = [stored.get(name) for name in node.input[1:3]]
    return (
        len(parts) == 2
        and all(part is not None and not part.dims for part in parts)
        and parts[1] is not None
        and parts[1].data_type == TensorProto.UINT8
    )


def _is_whole(node: onnx.NodeProto, stored: dict[str, TensorProto]) -> bool:
    """Integers of 8 or 32 bits with scales for rows or for all, not for blocks."""
    kinds = (TensorProto.UINT8, TensorProto.INT32)
    if (
        stored[node.input[0]].data_type == TensorProto.INT8
    ):  # signed weights of ours say that their zero point is 0
        return len(node.input) > 2 and len(stored[node.input[1]].dims) <= 1
    return stored[node.input[0]].data_type in kinds and len(stored[node.input[1]].dims) <= 1


def _along(node: onnx.NodeProto, array: NDArray[np.generic], dims: int) -> NDArray[np.generic]:
    axis = next((int(a.i) for a in node.attribute if a.name == "axis"), 1)
    if not array.ndim:
        return array
    return array.reshape([-1 if place == axis % dims else 1 for place in range(dims)])


def _real(node: onnx.NodeProto, stored: dict[str, TensorProto]) -> NDArray[np.float64]:
    integers, scale, *zero = (numpy_helper.to_array(stored[name]) for name in node.input if name)
    offset = _along(node, zero[0].astype(np.float64), integers.ndim) if zero else 0.0
    real: NDArray[np.float64] = (integers - offset) * _along(node, scale.astype(np.float64), integers.ndim)
    return real


def _weight(node: onnx.NodeProto, stored: dict[str, TensorProto], turned: bool) -> QuantizedWeight:
    integers, scale, *given = (numpy_helper.to_array(stored[name]) for name in node.input if name)
    zero = given[0] if given else np.zeros_like(scale, np.uint8)
    rows = np.ascontiguousarray(integers.T if turned else integers)
    signed = integers.dtype == np.int8
    symmetric = signed or bool((zero == 128).all())
    if symmetric and not signed:  # the writer's own: the plan's integers plus 128
        rows = (rows.astype(np.int16) - 128).astype(np.int8)
    if symmetric:
        zero = np.zeros_like(scale)
    return QuantizedWeight(
        packed=pack(torch.tensor(rows), 8),
        shape=tuple(rows.shape),
        bits=8,
        scheme="symmetric" if symmetric else "affine",
        axis=0 if scale.ndim else None,
        scale=torch.tensor(scale, dtype=torch.float32).reshape(-1),
        zero_point=torch.tensor(zero, dtype=torch.int32).reshape(-1),
    )
