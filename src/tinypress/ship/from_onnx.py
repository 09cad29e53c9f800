"""A float ONNX file, whoever exported it, to the int8 file: the arithmetic and the writer are those of a network.

The weights of every Conv, Gemm and MatMul are quantized as those of a layer are, one scale an output channel; the
activations are calibrated on the graph that came in. Nothing is exported again and no network is needed.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from tinypress.errors import ArtifactError, DataError, InputError, ModelError
from tinypress.facts import Note, QuantizedWeight, QuantPlan
from tinypress.files import write_bytes
from tinypress.measure.machine import machine
from tinypress.quantize.bias import with_room
from tinypress.quantize.fused import PRODUCTS
from tinypress.quantize.layer import dequantize_layer_weights, quantize_weight
from tinypress.quantize.reference import UnknownOperator, program_of
from tinypress.quantize.rows import Grid
from tinypress.quantize.values import calibrate
from tinypress.ship.equal import compare_with_reference
from tinypress.ship.explicit_pads import with_explicit_pads
from tinypress.ship.layout import laid_out
from tinypress.ship.signs import fit_signed, note_exact_on
from tinypress.ship.to_onnx import with_integers
from tinypress.task import Split

_GRID = Grid(8, "symmetric")
_OLDEST = 13  # the first opset whose DequantizeLinear has a scale a channel
_DTYPES = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.INT64: torch.int64,
    TensorProto.INT32: torch.int32,
    TensorProto.BOOL: torch.bool,
}


@dataclass(frozen=True)
class QuantizedFile:
    """The file that was written, its plan by the names of the graph, and which products kept their floats."""

    path: Path
    plan: QuantPlan
    notes: tuple[Note, ...]


def quantize_onnx(source: Path, target: Path, calibration: Split, *, check: bool = True) -> QuantizedFile:
    """Quantize the weights and activations of a float ONNX file to 8 bits and write the file for ONNX Runtime.

    Weights are symmetric with one scale an output channel, activations affine over the range that ``calibration``
    shows. A product whose second factor is no constant matrix stays float and is named in ``notes``.

    Args:
        source: one file, opset 13 or later, weights inside. A batch norm in it is folded.
        target: the file to write, whole or not at all.
        calibration: samples like those the network will see, one tensor for each input of the file, in its order.
        check: compare the file's integers with the reference on some of them, layer by layer, before it is written.

    Raises:
        InputError: the source is the target, or its graph is quantized already.
        ArtifactError: the file is missing, truncated, foreign, too old, or has its weights outside.
        ModelError: there is no product with a constant weight, or a weight is NaN, infinite or beyond 1e38.
        DataError: the samples do not fit the file's inputs, are all the same, or make a value NaN or infinite.
        ShipError: a layer of the file does not compute what the plan says.
        RunError: the target cannot be written.
    """
    call = f"quantize_onnx({source.name!r}, {target.name!r}, {len(calibration)} samples)"
    if source.resolve() == target.resolve():
        raise InputError(call, "source and target are the same", "Choose another target")
    proto = _read(call, source)
    _check_samples(call, proto, calibration)
    weights, notes = _weights(call, proto)
    if not weights:
        raise ModelError(call, "no Conv, Gemm or MatMul has a constant float weight", "Ship the float file")
    values = calibrate(proto, weights, calibration)
    plan = QuantPlan({**weights, **with_room(proto.graph, weights, values)}, values)
    isa = machine(1).isa
    signed = fit_signed(isa)
    source_graph, own = laid_out(proto, plan, isa) if signed else (proto, plan)
    written = onnx.ModelProto()
    written.CopyFrom(source_graph)
    written = with_integers(written, own, signed)
    reason = _compared(target.name, written, source_graph, own, calibration) if check else None
    if reason is not None:
        text = f"its integers were not compared with the reference: {reason}"
        notes.append(Note("TP207", "warning", None, text))
    write_bytes(target, written.SerializeToString(deterministic=True))
    return QuantizedFile(target, plan, tuple(notes))


def _compared(
    name: str, written: onnx.ModelProto, proto: onnx.ModelProto, plan: QuantPlan, calibration: Split
) -> str | None:
    """Compare the file with the reference and let it say where it is exact; else why that could not be done."""
    if len(proto.graph.output) != 1:
        return f"it has {len(proto.graph.output)} outputs"
    batches = {value.type.tensor_type.shape.dim[0].dim_value for value in proto.graph.input}
    if batches - {0, 1}:
        return f"its batch is always {max(batches)}"
    samples = calibration.take(slice(0, 1)) if 1 in batches else calibration
    arrays = tuple(column.detach().cpu().numpy() for column in samples.inputs)
    try:
        compare_with_reference(name, written, _with_rounded_weights(proto, plan), plan, arrays)
    except UnknownOperator as error:
        return error.problem
    note_exact_on(written)
    return None


def _with_rounded_weights(proto: onnx.ModelProto, plan: QuantPlan) -> onnx.ModelProto:
    """The float graph with what the file has for the weights of layers that compute in float all the same."""
    in_float = [
        step.node
        for step in program_of(proto, plan).steps
        if step.fused is None and len(step.node.input) > 1 and step.node.input[1] in plan.weights
    ]
    if not in_float:
        return proto
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    stored = {tensor.name: tensor for tensor in changed.graph.initializer}
    for node in in_float:
        real = dequantize_layer_weights(plan.weights[node.input[1]]).numpy()
        turned = real.T if node.op_type == "MatMul" else real
        stored[node.input[1]].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(turned), node.input[1]))
    return changed


def _read(call: str, source: Path) -> onnx.ModelProto:
    remedy = "Export it again as one float file"
    try:
        proto = onnx.load_model_from_string(source.read_bytes())
    except OSError as error:
        raise ArtifactError(call, f"the file cannot be read ({error.strerror})", remedy) from error
    except DecodeError as error:
        raise ArtifactError(call, "it is truncated or no ONNX file", remedy) from error
    if not proto.graph.node:
        raise ArtifactError(call, "it holds no graph", remedy)
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in proto.graph.initializer):
        raise ArtifactError(call, "its weights lie in another file", "Save it with the weights inside")
    opset = max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if opset < _OLDEST:
        raise ArtifactError(call, f"it is of opset {opset}", f"Export it with opset {_OLDEST} or later")
    kinds = {node.op_type for node in proto.graph.node}
    if kinds & {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "MatMulNBits"}:
        raise InputError(call, "its graph is quantized already", "Give the float file")
    if kinds & {"BatchNormalization", "Constant", "Identity"}:
        proto = _simplified(call, proto)
    named = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in named]
    proto.graph.ClearField("input")  # files of old list their weights among the inputs
    proto.graph.input.extend(inputs)
    return with_explicit_pads(proto)


def _simplified(call: str, proto: onnx.ModelProto) -> onnx.ModelProto:
    """Constants worked out and batch norms folded, as ONNX Runtime does when it opens the file."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        simplified = Path(folder) / "simplified.onnx"
        options.optimized_model_filepath = str(simplified)
        try:
            onnxruntime.InferenceSession(
                proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            raise ArtifactError(
                call, f"ONNX Runtime cannot open it: {reason}", "Export it again as one float file"
            ) from error
        return onnx.load(simplified, load_external_data=False)


def _check_samples(call: str, proto: onnx.ModelProto, samples: Split) -> None:
    wanted = list(proto.graph.input)
    if len(wanted) != len(samples.inputs):
        names = [value.name for value in wanted]
        raise DataError(
            call, f"it has the inputs {names}, the samples {len(samples.inputs)}", "Give one tensor for each"
        )
    for value, column in zip(wanted, samples.inputs, strict=True):
        kind, dims = value.type.tensor_type.elem_type, value.type.tensor_type.shape.dim
        if _DTYPES.get(kind) != column.dtype:
            named = TensorProto.DataType.Name(kind).lower()
            raise DataError(
                call, f"input {value.name!r} takes {named}, the samples are {column.dtype}", "Convert them"
            )
        if dims and dims[0].HasField("dim_value"):
            raise ArtifactError(
                call,
                f"the batch dimension of {value.name!r} is frozen",
                "Export it with a free batch dimension",
            )
        fixed = [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]
        given = tuple(column.shape)
        if len(fixed) != len(given) or any(
            a is not None and a != b for a, b in zip(fixed, given, strict=True)
        ):
            shown = ["any" if size is None else size for size in fixed]
            raise DataError(
                call, f"input {value.name!r} is {shown}, the samples are {list(given)}", "Reshape them"
            )
        if len(column) > 1 and bool((column == column[:1]).all()):
            raise DataError(
                call,
                f"all {len(column)} calibration samples have the same {value.name!r}",
                "Calibrate on different samples of real data",
            )


def _weights(call: str, proto: onnx.ModelProto) -> tuple[dict[str, QuantizedWeight], list[Note]]:
    """The constant weights of products by their names in the graph, and the products that have none."""
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    weights: dict[str, QuantizedWeight] = {}
    readers: dict[str, int] = {}
    for node in proto.graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    notes = []
    for node in proto.graph.node:
        if node.op_type not in PRODUCTS:
            continue
        tensor = stored.get(node.input[1])
        reason = _left_float(node, tensor, readers)
        if reason is not None or tensor is None:
            notes.append(
                Note("TP201", "warning", node.output[0], f"{reason}: this {node.op_type} stays float")
            )
            continue
        if node.op_type == "Gemm" and not _attribute(node, "transB", 0):
            _turn(node, tensor)
        weight = torch.from_numpy(numpy_helper.to_array(tensor).copy())
        weights[tensor.name] = _quantized(f"{call}, {tensor.name!r}", node, weight)
    return weights, notes


def _left_float(node: onnx.NodeProto, tensor: TensorProto | None, readers: dict[str, int]) -> str | None:
    """Why the product of ``node`` cannot be one of integers; ``None`` where it can."""
    if tensor is None:
        return "its second factor is no constant"
    if tensor.data_type != TensorProto.FLOAT:
        return f"its weight is {TensorProto.DataType.Name(tensor.data_type).lower()}"
    if node.op_type != "Conv" and len(tensor.dims) != 2:
        return f"its weight has {len(tensor.dims)} dimensions"
    if not np.prod(tensor.dims):
        return "its weight is empty"
    if readers[tensor.name] > 1:
        return "its weight has other readers"
    if node.op_type == "Gemm" and (_attribute(node, "transA", 0) or _attribute(node, "alpha", 1) != 1):
        return "its factors are turned or scaled"
    if len(node.input) > 2 and node.input[2] and _attribute(node, "beta", 1) != 1:
        return "its bias is scaled"
    return None


def _quantized(call: str, node: onnx.NodeProto, weight: Tensor) -> QuantizedWeight:
    """As the writer takes it: a MatMul's weight [K, N] as that of a Linear, [N, K]."""
    if node.op_type == "MatMul":
        return quantize_weight(call, weight.T.contiguous(), 0, _GRID)
    return quantize_weight(call, weight, 0, _GRID)


def _turn(node: onnx.NodeProto, tensor: TensorProto) -> None:
    """Store the weight of a Gemm row by row, as the reference and the other writers know it."""
    rows = np.ascontiguousarray(numpy_helper.to_array(tensor).T)
    tensor.CopyFrom(numpy_helper.from_array(rows, tensor.name))
    kept = [a for a in node.attribute if a.name != "transB"]
    node.ClearField("attribute")
    node.attribute.extend([*kept, helper.make_attribute("transB", 1)])


def _attribute(node: onnx.NodeProto, name: str, default: float) -> float:
    found = next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)
    return float(found)
