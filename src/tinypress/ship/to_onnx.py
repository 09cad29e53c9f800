"""Writes a network as ONNX: float as it is, or with the integers, scales and zero points of its plan.

Weights alone, and all that have no integer kernel, are written by ``low_bits.py``. With activations, the integer file
is in quantize-dequantize form, which ONNX Runtime fuses into integer kernels. Every scale comes from the plan; the only
numbers made here are the biases, whose scale is defined as the product of those of input and weight (Jacob et al. 2018,
arXiv:1712.05877, eq. 7 and §2.4). Layers that round their input at run time are written by ``dynamic.py``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor

from tinypress.bits import unpack
from tinypress.facts import Compressed, QuantizedValue, QuantizedWeight, QuantPlan
from tinypress.files import write_bytes
from tinypress.float_onnx import OPSET, to_float_onnx
from tinypress.measure.machine import machine
from tinypress.quantize.bias import bias_integers
from tinypress.quantize.fused import PRODUCTS, has_integer_kernel, turned_weights
from tinypress.quantize.reference import UnknownOperator
from tinypress.ship import low_bits
from tinypress.ship.dynamic import at_run_time, with_dynamic
from tinypress.ship.equal import compare_with_reference
from tinypress.ship.layout import laid_out
from tinypress.ship.lookup import is_lookup, looked_up
from tinypress.ship.signs import as_bytes, choose_signed, note_exact_on


def write_onnx(
    path: Path,
    compressed: Compressed,
    example_inputs: tuple[Tensor, ...],
    *,
    check: tuple[Tensor, ...] | None = None,
    free_length: bool = False,
    signed_weights: bool | None = None,
) -> None:
    """Write ``compressed`` to ``path``, whole or not at all.

    Args:
        check: samples, one tensor [N, ...] per input, on which the file's integers are compared with the reference,
            layer by layer, before it is written; files of integer weights alone have none.
        free_length: in a file without calibrated activations, the second dimension of every input is free.
        signed_weights: of a file that computes in integers: signed bytes are for processors with 8-bit dot
            products (VNNI, AMX) and saturate without them, unsigned ones are exact everywhere. By default what this
            processor's kernels like.

    Raises:
        InputError: the plan has weights that are not those of the exported graph, or have scales along another axis
            than its rows.
        ModelError: the network cannot be exported.
        ShipError: a layer of the file does not compute what the plan says, or weights are wanted signed where this
            processor has no 8-bit dot products.
        RunError: the file cannot be written.
    """
    written, proto, plan = _written(compressed, example_inputs, free_length, signed_weights)
    if check is not None and plan is not None and (plan.values or plan.dynamic):
        samples = tuple(column.detach().cpu().numpy() for column in check)
        with contextlib.suppress(UnknownOperator):  # then the receipt says that nothing was compared
            compare_with_reference(path.name, written, proto, plan, samples)
            note_exact_on(written)
    write_bytes(path, written.SerializeToString(deterministic=True))


def to_onnx(
    compressed: Compressed,
    example_inputs: tuple[Tensor, ...],
    *,
    free_length: bool = False,
    signed_weights: bool | None = None,
) -> onnx.ModelProto:
    """The ONNX form of ``compressed``; see ``write_onnx``."""
    return _written(compressed, example_inputs, free_length, signed_weights)[0]


def _written(
    compressed: Compressed,
    example_inputs: tuple[Tensor, ...],
    free_length: bool,
    signed_weights: bool | None,
) -> tuple[onnx.ModelProto, onnx.ModelProto, QuantPlan | None]:
    """The file, and the float graph and the plan that it is made from."""
    plan = compressed.plan
    if plan is None:
        proto = to_float_onnx(compressed.model, example_inputs, free_length=free_length)
        return proto, proto, None
    call = f"to_onnx({type(compressed.model).__name__})"
    now = at_run_time(plan)
    if now:
        works = bool(plan.values or plan.dynamic)  # what is only stored in integers reads neither kernel
        signed = works and choose_signed(call, signed_weights, machine(1).isa)
        return *_with_dynamic(call, compressed, example_inputs, now, free_length, signed), plan
    if not plan.values:
        proto = to_float_onnx(compressed.model, example_inputs, opset=low_bits.OPSET, free_length=free_length)
        return low_bits.with_low_bits(call, _copy(proto), plan), proto, plan
    signed = choose_signed(call, signed_weights, machine(1).isa)
    integers = {name: weight for name, weight in plan.weights.items() if has_integer_kernel(weight)}
    others = {name: weight for name, weight in plan.weights.items() if name not in integers}
    if not others:
        proto = to_float_onnx(compressed.model, example_inputs)
        if signed:
            proto, plan = laid_out(proto, plan, machine(1).isa)
        return with_integers(_copy(proto), plan, signed), proto, plan
    # each layer by the operators for its bits: activations are integers only where both sides have kernels for them
    proto = to_float_onnx(compressed.model, example_inputs, opset=low_bits.OPSET)
    mixed = with_integers(_copy(proto), QuantPlan(integers, plan.values), signed)
    return low_bits.with_low_bits(call, mixed, QuantPlan(others)), proto, plan


def _with_dynamic(
    call: str,
    compressed: Compressed,
    example_inputs: tuple[Tensor, ...],
    now: frozenset[str],
    free_length: bool,
    signed: bool,
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Layers ``now`` round their input at run time; those between calibrated values and the others as ever."""
    plan = compressed.plan
    assert plan is not None
    rest = {name: weight for name, weight in plan.weights.items() if name not in now}
    eight_bits = {name: weight for name, weight in rest.items() if has_integer_kernel(weight)}
    proto = to_float_onnx(
        compressed.model,
        example_inputs,
        opset=low_bits.OPSET if len(eight_bits) < len(rest) or not plan.values else OPSET,
        free_length=free_length and not plan.values,
    )
    tables = {node.input[0] for node in proto.graph.node if is_lookup(node)}
    # without ranges a product between floats would read integers that the runtime rounds its input for, unasked
    integers = {name: weight for name, weight in eight_bits.items() if plan.values or name in tables}
    others = {name: weight for name, weight in rest.items() if name not in integers}
    written = with_integers(
        with_dynamic(_copy(proto), plan, signed), QuantPlan(integers, plan.values), signed
    )
    return low_bits.with_low_bits(call, written, QuantPlan(others)) if others else written, proto


def _copy(proto: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(proto)
    return copied


def with_integers(proto: onnx.ModelProto, plan: QuantPlan, signed: bool = False) -> onnx.ModelProto:
    """``proto``, a float graph, changed in place: its weights and values are the integers of ``plan``.

    With ``signed`` the weights of products are stored as signed bytes; a table that is looked up keeps unsigned ones.
    """
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

    turned = turned_weights(graph, plan.weights)
    tables = {node.input[0] for node in graph.node if is_lookup(node)}

    def weight_of(node: onnx.NodeProto) -> str:
        read: str = node.input[1]
        return turned.get(read, read)

    for value in graph.input:
        if value.name in plan.values:
            nodes += quantized(value.name)
    for node in graph.node:
        if node.op_type == "Transpose" and node.input[0] in plan.weights:
            own = signed and node.input[0] not in tables
            nodes += _dequantized(node.input[0], plan.weights[node.input[0]], added, signed=own)
            node.input[0] = f"{node.input[0]}:d"
        elif node.op_type in PRODUCTS and len(node.input) > 1 and weight_of(node) in plan.weights:
            own = signed and weight_of(node) not in tables
            nodes += _product_constants(node, weight_of(node), plan, constants, added, own)
        table = plan.weights.get(node.input[0]) if is_lookup(node) else None
        source = node.input[0] if node.input else ""
        for position, name in enumerate(node.input):
            if name in plan.values:
                node.input[position] = f"{name}:d"
        if source in plan.values and _would_be_rounded(node, plan, constants):
            nodes.append(_apart(node, plan.values[source], constant))
        nodes += [node] if table is None else looked_up(node, table, added)
        for name in node.output:
            if name in plan.values:
                nodes += quantized(name)
    graph.ClearField("node")
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input if name}
    kept = [tensor for name, tensor in constants.items() if name in used and name not in added]
    graph.ClearField("initializer")
    graph.initializer.extend([*kept, *added.values()])
    return proto


def _would_be_rounded(
    node: onnx.NodeProto, plan: QuantPlan, constants: Mapping[str, onnx.TensorProto]
) -> bool:
    """Whether the runtime would give this layer's float weight 8 bits of its own, unasked, with one scale for all.

    ONNX Runtime's WeightBiasQuantization does so to every such layer that reads dequantized integers and is read by a
    QuantizeLinear: a layer that was kept in float because it cannot bear few bits would get them after all.
    """
    if node.op_type not in _ROUNDED_UNASKED or len(node.input) < 2:
        return False
    return node.input[1] in constants and node.input[1] not in plan.weights


def _apart(
    node: onnx.NodeProto, value: QuantizedValue, constant: Callable[[str, NDArray[np.generic]], str]
) -> onnx.NodeProto:
    """A clamp to the range that the integers have anyway, which keeps ``node`` out of that pattern."""
    low, high = (np.float32((end - value.zero_point) * value.scale) for end in (0, 2**value.bits - 1))
    ends = [constant(f"b:{end!r}", np.array(end, np.float32)) for end in (float(low), float(high))]
    dequantized = node.input[0]
    node.input[0] = f"{dequantized}:{node.output[0]}"
    return helper.make_node("Clip", [dequantized, *ends], [node.input[0]])


_ROUNDED_UNASKED = frozenset({"Conv", "ConvTranspose", "Gemm"})


def _product_constants(
    node: onnx.NodeProto,
    name: str,
    plan: QuantPlan,
    constants: dict[str, onnx.TensorProto],
    added: dict[str, onnx.TensorProto],
    signed: bool,
) -> list[onnx.NodeProto]:
    """Put integer weight and bias into ``added``, make ``node`` read them, return what dequantizes them.

    ``name`` is that of the weight, which ``node`` reads as it is or by way of a Transpose.
    """
    weight = plan.weights[name]
    made = []
    if node.input[1] == name:  # the exporter stores x @ W.T for a Linear without bias
        made += _dequantized(name, weight, added, turned=node.op_type == "MatMul", signed=signed)
        node.input[1] = f"{name}:d"
    if len(node.input) > 2 and node.input[2] in constants and node.input[0] in plan.values:
        stored = constants[node.input[2]]
        rounded, scale = bias_integers(numpy_helper.to_array(stored), plan.values[node.input[0]], weight)
        bias = _free(stored.name, added, rounded)
        if bias not in added:
            added[bias] = numpy_helper.from_array(rounded, bias)
            added[f"{bias}:s"] = numpy_helper.from_array(scale, f"{bias}:s")
            attributes = {} if weight.axis is None else {"axis": 0}
            made.append(
                helper.make_node("DequantizeLinear", [bias, f"{bias}:s"], [f"{bias}:d"], **attributes)
            )
        node.input[2] = f"{bias}:d"
    return made


def _dequantized(
    name: str,
    weight: QuantizedWeight,
    added: dict[str, onnx.TensorProto],
    *,
    turned: bool = False,
    signed: bool = False,
) -> list[onnx.NodeProto]:
    """The node that makes ``name:d`` of the weight's integers, unless there is one: they are stored once."""
    if f"{name}:z" in added:
        return []
    q = unpack(weight.packed, 8, int(np.prod(weight.shape)), signed=True).reshape(weight.shape).numpy()
    axis = weight.axis
    if turned:
        q = np.ascontiguousarray(q.T)
        axis = None if axis is None else 1 - axis
    scale = _scalar_or_vector(weight)
    stored, zero = as_bytes(q, signed)
    added[name] = numpy_helper.from_array(stored, name)
    added[f"{name}:s"] = numpy_helper.from_array(scale, f"{name}:s")
    added[f"{name}:z"] = numpy_helper.from_array(np.full(scale.shape, zero), f"{name}:z")
    attributes = {} if axis is None else {"axis": axis}
    parts = [name, f"{name}:s", f"{name}:z"]
    return [helper.make_node("DequantizeLinear", parts, [f"{name}:d"], **attributes)]


def _free(name: str, added: Mapping[str, onnx.TensorProto], values: NDArray[np.int32]) -> str:
    """``name``, or one like it: a layer that runs twice on inputs of two scales has two biases in integers."""
    count, candidate = 1, name
    while candidate in added and not np.array_equal(numpy_helper.to_array(added[candidate]), values):
        count += 1
        candidate = f"{name}:{count}"
    return candidate


def _scalar_or_vector(weight: QuantizedWeight) -> NDArray[np.float32]:
    scale: NDArray[np.float32] = weight.scale.numpy().astype(np.float32)
    return scale.reshape(()) if weight.axis is None else scale
