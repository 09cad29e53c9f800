"""Weights of few bits in ONNX: the plan's integers and scales in the operators that ONNX Runtime has for them.

    MatMul, Gemm    com.microsoft MatMulNBits            multiplies from the packed weights
    Gather          com.microsoft GatherBlockQuantized   unpacks the rows that are looked up
    all others      DequantizeLinear, 4-bit and blocked  the runtime unpacks the whole weight to float (opset 21)
    halves          Cast                                 the same

Integers are stored as they are, moved into the unsigned range where the operator asks for it: q and its zero point
by the same number. Operators have containers of 2, 4 and 8 bits only: other widths ride in the next larger. Rows are
cut into the operator's blocks; where the plan's groups are longer than a block, their scale is repeated.

Axes: C rows of a weight (output channels, or words of a table), K weights of one, G blocks of one row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tinypress.bits import unpack
from tinypress.errors import InputError
from tinypress.facts import QuantizedWeight, QuantPlan
from tinypress.quantize import dequantize_layer_weights
from tinypress.ship.blocks import Blocks, blocks_of, nibbles, packed_blocks

OPSET = 21
_MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class _Weight:
    """A weight of the plan under its name in the graph, where it stands as it is or ``turned``, transposed."""

    name: str
    quantized: QuantizedWeight
    turned: bool


@dataclass
class _Writer:
    """The new parts of a graph while it is rewritten."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, TensorProto] = field(default_factory=dict)

    def constant(self, name: str, array: NDArray[np.generic]) -> str:
        self.constants.setdefault(name, numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        """Append a node unless its output is there already; returns the output's name."""
        if all(output not in node.output for node in self.nodes):
            self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output


def with_low_bits(call: str, proto: onnx.ModelProto, plan: QuantPlan) -> onnx.ModelProto:
    """``proto`` with the plan's weights as integers; the float graph must be that of the dequantized network.

    Raises:
        InputError: a weight in the graph is not the one that the plan stands for, or has scales along another axis
            than its rows.
    """
    graph = proto.graph
    floats = {tensor.name: tensor for tensor in graph.initializer}
    used = {name for node in graph.node for name in node.input}
    weights = {
        name: _Weight(name, weight, _is_turned(call, name, weight, floats[name]))
        for name, weight in plan.weights.items()
        if name in floats and name in used
    }
    writer = _Writer()
    for node in graph.node:
        weight = weights.get(node.input[0]) if node.op_type == "Transpose" and len(node.input) else None
        if weight is not None and len(weight.quantized.shape) == 2:  # its readers take the rows as they are
            weights[node.output[0]] = replace(weight, turned=not weight.turned)
            continue
        _rewrite(node, weights, writer)
    _finish(proto, writer, floats)
    return proto


def _rewrite(node: onnx.NodeProto, weights: Mapping[str, _Weight], writer: _Writer) -> None:
    second = weights.get(node.input[1]) if len(node.input) > 1 else None
    if second is not None and node.op_type in ("MatMul", "Gemm") and node.input[0] not in weights:
        # the operator multiplies by rows, B = W^T
        rows = second.turned != bool(_integer(node, "transB"))
        blocks = blocks_of(second.quantized) if rows and _plain(node) else None
        if blocks is not None and blocks.bits <= 4:
            _product(node, second, blocks, writer)
            return
    table = weights.get(node.input[0])
    if table is not None and node.op_type == "Gather" and not _integer(node, "axis") and not table.turned:
        blocks = blocks_of(table.quantized)
        if blocks is not None:
            _lookup(node, table, blocks, writer)
            return
    for place, read in enumerate(node.input):
        if read in weights:
            node.input[place] = _unpacked(weights[read], writer)
    writer.nodes.append(node)


def _product(node: onnx.NodeProto, of: _Weight, blocks: Blocks, writer: _Writer) -> None:
    name, weight = of.name, of.quantized
    rows, width = weight.shape
    given = node.input[0]
    if weight.input_scale is not None:
        scale = writer.constant(f"{name}:input_scale", weight.input_scale.numpy())
        given = writer.node("Div", [given, scale], f"{node.output[0]}:divided")
    inputs = [given, *_block_constants(name, blocks, writer)]
    bias = node.input[2] if len(node.input) > 2 else ""
    product = f"{node.output[0]}:product" if bias else node.output[0]
    attributes = {"K": width, "N": rows, "bits": blocks.bits, "block_size": blocks.size}
    writer.node("MatMulNBits", inputs, product, domain=_MICROSOFT, **attributes)
    if bias:
        writer.node("Add", [product, bias], node.output[0])


def _lookup(node: onnx.NodeProto, of: _Weight, blocks: Blocks, writer: _Writer) -> None:
    name, weight = of.name, of.quantized
    width = weight.shape[1]
    data, *rest = _block_constants(name, blocks, writer)
    flat = writer.constant(f"{name}:rows", np.array([len(blocks.integers), -1], np.int64))
    table = writer.node("Reshape", [data, flat], f"{name}:table")  # folded when the file is opened
    short = blocks.integers.shape[1] * blocks.size != width
    steps = ["short"] * short + ["divided"] * (weight.input_scale is not None)
    names = [f"{node.output[0]}:{step}" for step in steps]
    outputs = iter([*names, node.output[0]])
    attributes = {"bits": blocks.bits, "block_size": blocks.size, "gather_axis": 0, "quantize_axis": 1}
    inputs = [table, node.input[1], *rest]
    found = writer.node("GatherBlockQuantized", inputs, next(outputs), domain=_MICROSOFT, **attributes)
    if short:  # the last block was filled up
        ends = [("starts", 0), ("ends", width), ("axes", -1)]
        cut = [writer.constant(f"{name}:{key}", np.array([value], np.int64)) for key, value in ends]
        found = writer.node("Slice", [found, *cut], next(outputs))
    if weight.input_scale is not None:
        scale = writer.constant(f"{name}:input_scale", weight.input_scale.numpy())
        writer.node("Div", [found, scale], next(outputs))


def _block_constants(name: str, blocks: Blocks, writer: _Writer) -> list[str]:
    """Names of packed integers [C, G, bytes], scales [C, G] and, if not in the middle, zero points [C, bytes]."""
    names = [
        writer.constant(name, packed_blocks(blocks.integers, blocks.bits)),
        writer.constant(f"{name}:scale", blocks.scale),
    ]
    if blocks.zero_point is not None:
        packed = packed_blocks(blocks.zero_point[:, None], blocks.bits)[:, 0]
        names.append(writer.constant(f"{name}:zero_point", packed))
    return names


def _unpacked(of: _Weight, writer: _Writer) -> str:
    """The name of the dequantized weight in its own shape, or transposed.

    The integers are stored as [1, C, K] and brought into shape once they are numbers: ONNX Runtime would else fuse a
    matrix with the product after it into a kernel that rounds the activations to 8 bits, which no one asked for.
    """
    name, weight = of.name, of.quantized
    if weight.is_half:
        kind = TensorProto.FLOAT16 if weight.scheme == "float16" else TensorProto.BFLOAT16
        dims = weight.shape
        half = TensorProto(
            name=f"{name}:packed", data_type=kind, dims=dims, raw_data=weight.packed.numpy().tobytes()
        )
        writer.constants.setdefault(half.name, half)
        real = writer.node("Cast", [half.name], f"{name}:real", to=TensorProto.FLOAT)
        return writer.node("Transpose", [real], f"{name}:turned", perm=[1, 0]) if of.turned else real
    signed = weight.scheme == "symmetric"
    rows, width = weight.rows
    q = unpack(weight.packed, weight.bits, rows * width, signed=signed).numpy().reshape(1, rows, width)
    scale = weight.scale.numpy().reshape(1, rows, -1)
    zero = None if signed else weight.zero_point.numpy().astype(np.uint8).reshape(1, rows, -1)
    attributes: dict[str, int] = {"axis": 1}
    if scale.shape[2] > 1 and weight.group_size is not None:
        attributes = {"axis": 2, "block_size": weight.group_size}
    else:
        scale, zero = scale[0, :, 0], None if zero is None else zero[0, :, 0]
    inputs = [_stored(f"{name}:packed", q, weight.bits, writer), writer.constant(f"{name}:scales", scale)]
    if zero is not None:
        inputs.append(_stored(f"{name}:zeros", zero, weight.bits, writer))
    flat = writer.node("DequantizeLinear", inputs, f"{name}:flat", **attributes)
    shape = writer.constant(f"{name}:shape", np.array(weight.shape, np.int64))
    real = writer.node("Reshape", [flat, shape], f"{name}:real")
    if weight.input_scale is not None:
        along = weight.input_scale.numpy().reshape(-1, *[1] * (len(weight.shape) - 2))
        scale_name = writer.constant(f"{name}:input_scales", along)
        real = writer.node("Div", [real, scale_name], f"{name}:divided")
    return writer.node("Transpose", [real], f"{name}:turned", perm=[1, 0]) if of.turned else real


def _stored(name: str, integers: NDArray[np.integer], bits: int, writer: _Writer) -> str:
    """int8 or uint8 as a constant of 4 bits where they fit, else of 8."""
    if bits > 4:
        return writer.constant(name, integers)
    kind = TensorProto.INT4 if integers.dtype == np.int8 else TensorProto.UINT4
    raw = nibbles(integers).tobytes()
    tensor = TensorProto(name=name, data_type=kind, dims=integers.shape, raw_data=raw)
    writer.constants.setdefault(name, tensor)
    return name


def _finish(proto: onnx.ModelProto, writer: _Writer, floats: dict[str, TensorProto]) -> None:
    graph = proto.graph
    used = {name for node in writer.nodes for name in node.input} | {value.name for value in graph.output}
    graph.ClearField("node")
    graph.node.extend(writer.nodes)
    kept = [t for name, t in floats.items() if name in used and name not in writer.constants]
    graph.ClearField("initializer")
    graph.initializer.extend([*kept, *writer.constants.values()])
    domains = {entry.domain for entry in proto.opset_import}
    if _MICROSOFT not in domains and any(node.domain == _MICROSOFT for node in writer.nodes):
        proto.opset_import.append(helper.make_opsetid(_MICROSOFT, 1))


def _is_turned(call: str, name: str, weight: QuantizedWeight, stored: TensorProto) -> bool:
    """Whether the graph stores the weight transposed, as the exporter does for a Linear without bias."""
    if weight.axis not in (None, 0):
        raise InputError(
            call,
            f"{name!r} has scales along axis {weight.axis}, and only rows are written",
            'Ship it as an archive (ship = ["archive"])',
        )
    real = dequantize_layer_weights(weight).numpy()
    written = numpy_helper.to_array(stored)
    if np.array_equal(written, real):
        return False
    if real.ndim == 2 and np.array_equal(written, real.T):
        return True
    raise InputError(
        call,
        f"the exported graph holds other values for {name!r} than the plan",
        "Give quantize_weights example_inputs, so that batch norm is folded before the weights are quantized",
    )


def _plain(node: onnx.NodeProto) -> bool:
    """Whether a Gemm is a product and a sum, with no factor of its own."""
    factors = [a.f for a in node.attribute if a.name in ("alpha", "beta")]
    return all(factor == 1.0 for factor in factors) and not _integer(node, "transA")


def _integer(node: onnx.NodeProto, name: str) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), 0)
