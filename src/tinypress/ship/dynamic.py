"""Layers that round their input at run time, and recurrent weights, in ONNX.

    Gemm, MatMul    DynamicQuantizeLinear, MatMulInteger, Cast, Mul    fused into DynamicQuantizeMatMul
    Conv            DynamicQuantizeLinear, ConvInteger, Cast, Mul      in integers, and slower than in float
    LSTM            com.microsoft DynamicQuantizeLSTM
    GRU, RNN        DequantizeLinear, Reshape                          no integer kernel: unpacked to float

A bias is added in float behind the product. Weights of products are stored signed or as the plan's integers plus 128;
``signs.py`` says which.

Axes: D directions, G gates times hidden units, I inputs, O outputs.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tinypress.bits import unpack
from tinypress.facts import QuantizedWeight, QuantPlan
from tinypress.quantize.fused import dynamic_nodes
from tinypress.quantize.recurrent import NODES, stacked
from tinypress.ship.signs import as_bytes

MICROSOFT = "com.microsoft"


def at_run_time(plan: QuantPlan) -> frozenset[str]:
    """Weights of ``plan`` that this file writes: of layers that round their input, and of recurrent ones."""
    return plan.dynamic | {name for name in plan.weights if _is_recurrent(name)}


def with_dynamic(proto: onnx.ModelProto, plan: QuantPlan, signed: bool = False) -> onnx.ModelProto:
    """``proto``, a float graph, changed in place: the weights that ``at_run_time`` names are integers.

    With ``signed`` those of products in integers are signed bytes.
    """
    graph = proto.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    products = {kernel.nodes[0]: kernel.weight for kernel in dynamic_nodes(graph, plan.dynamic)}
    added: dict[str, TensorProto] = {}
    nodes: dict[
        str, onnx.NodeProto
    ] = {}  # by the first value that each writes: what is rounded once is not twice
    for place, node in enumerate(graph.node):
        weight = products.get(place)
        made = [node]
        if node.op_type in NODES and node.input[1] in plan.weights:
            made = _recurrent(node, plan, added, signed)
        elif weight is not None:
            made = _product(node, weight, plan.weights[weight], added, signed)
        for each in made:
            nodes.setdefault(next(name for name in each.output if name), each)
    graph.ClearField("node")
    graph.node.extend(nodes.values())
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for name, tensor in constants.items() if name in used and name not in added]
    graph.ClearField("initializer")
    graph.initializer.extend([*kept, *added.values()])
    domains = {entry.domain for entry in proto.opset_import}
    if MICROSOFT not in domains and any(node.domain == MICROSOFT for node in graph.node):
        proto.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    return proto


def _is_recurrent(name: str) -> bool:
    return name.rpartition(".")[2].startswith(("weight_ih_l", "weight_hh_l"))


def _put(added: dict[str, TensorProto], name: str, array: NDArray[np.generic]) -> str:
    added.setdefault(name, numpy_helper.from_array(np.ascontiguousarray(array), name))
    return name


def _product(
    node: onnx.NodeProto,
    name: str,
    weight: QuantizedWeight,
    added: dict[str, TensorProto],
    signed: bool,
) -> list[onnx.NodeProto]:
    x, out = node.input[0], node.output[0]
    integers = unpack(weight.packed, 8, int(np.prod(weight.shape)), signed=True).reshape(weight.shape).numpy()
    conv = node.op_type == "Conv"
    scale = weight.scale.numpy().astype(np.float32)
    along = (1, -1, *[1] * (integers.ndim - 2)) if conv else (-1,)
    values, zero = as_bytes(integers if conv else integers.T, signed)
    stored = [
        _put(added, name, values),
        _put(added, f"{name}:s", scale.reshape(()) if weight.axis is None else scale.reshape(along)),
        _put(added, f"z:{zero}", zero),
    ]
    bias = node.input[2] if len(node.input) > 2 else ""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute} if conv else {}
    last = f"{out}:real" if bias else out
    parts = [f"{x}:now", f"{x}:step", f"{x}:zero"]
    made = [
        helper.make_node("DynamicQuantizeLinear", [x], parts),
        helper.make_node(
            "ConvInteger" if conv else "MatMulInteger",
            [parts[0], stored[0], parts[2], stored[2]],
            [f"{out}:sums"],
            **attributes,
        ),
        helper.make_node("Cast", [f"{out}:sums"], [f"{out}:whole"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [parts[1], stored[1]], [f"{x}:step:{name}"]),
        helper.make_node("Mul", [f"{out}:whole", f"{x}:step:{name}"], [last]),
    ]
    if bias and conv:  # as it broadcasts, which is worked out when the file is opened
        shape = _put(added, f"along:{integers.ndim}", np.array(along, np.int64))
        made.append(helper.make_node("Reshape", [bias, shape], [f"{bias}:along"]))
        bias = f"{bias}:along"
    if bias:
        made.append(helper.make_node("Add", [last, bias], [out]))
    return made


def _recurrent(
    node: onnx.NodeProto, plan: QuantPlan, added: dict[str, TensorProto], signed: bool
) -> list[onnx.NodeProto]:
    matrices = list(node.input[1:3])
    if node.op_type != "LSTM" or not set(matrices) <= plan.dynamic:
        made = []
        for place, name in enumerate(matrices, 1):
            if name in plan.weights:
                made += _unpacked(name, *stacked(plan.weights, name, node.op_type), added)
                node.input[place] = f"{name}:real"
        return [*made, node]
    inputs = [*node.input, *[""] * (8 - len(node.input))]
    for name in matrices:
        q_DGI, scale_DG = stacked(plan.weights, name, "LSTM")
        values, zero = as_bytes(q_DGI.swapaxes(1, 2), signed)
        _put(added, name, values)
        scale = _put(added, f"{name}:s", scale_DG)
        inputs += [scale, _put(added, f"{name}:z", np.full(scale_DG.shape, zero))]
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    attributes.pop("layout", None)  # 0, the only one that the operator knows
    return [
        helper.make_node("DynamicQuantizeLSTM", inputs, list(node.output), domain=MICROSOFT, **attributes)
    ]


def _unpacked(
    name: str, q_DGI: NDArray[np.int64], scale_DG: NDArray[np.float32], added: dict[str, TensorProto]
) -> list[onnx.NodeProto]:
    """Rows of both directions end to end, each with a scale, brought into shape once they are numbers."""
    values, zero = as_bytes(q_DGI.reshape(1, -1, q_DGI.shape[2]), signed=False)
    stored = [
        _put(added, name, values),
        _put(added, f"{name}:s", scale_DG.reshape(-1)),
        _put(added, f"{name}:z", np.full(scale_DG.size, zero)),
    ]
    shape = _put(added, f"{name}:shape", np.array(q_DGI.shape, np.int64))
    return [
        helper.make_node("DequantizeLinear", stored, [f"{name}:flat"], axis=1),
        helper.make_node("Reshape", [f"{name}:flat", shape], [f"{name}:real"]),
    ]
