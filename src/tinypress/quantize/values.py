"""Which values of the float graph become integers, and from which observed range.

Integer kernels exist for products, sums, concatenation and pooling. Their inputs and outputs become 8-bit;
shape operators and maximum pooling pass integers through with the scale they came with; the network's output
stays float, so that the last layer's result is not rounded.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
import onnx.shape_inference
from onnx import TensorProto, helper

from tinypress.errors import DataError
from tinypress.facts import QuantizedValue
from tinypress.runtimes.onnx import open_onnx
from tinypress.task import Split

PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})
_JOINS = frozenset({"Add", "Concat", "GlobalAveragePool", "AveragePool"})
_PASS_THROUGH = frozenset({"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"})


def observed_names(graph: onnx.GraphProto, weights: Collection[str]) -> tuple[str, ...]:
    """Values that need a scale of their own: inputs and outputs of integer kernels, in graph order.

    The output of a product whose only reader is a Relu is left out: the kernel clamps in the same step.
    """
    constants = {tensor.name for tensor in graph.initializer} | {
        name for node in graph.node if node.op_type == "Constant" for name in node.output
    }
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}
    chosen: dict[str, None] = {}
    for node in graph.node:
        activations = [name for name in node.input if name and name not in constants]
        if node.op_type in PRODUCTS:
            integer = len(activations) == 1 and len(node.input) > 1 and node.input[1] in weights
        else:
            # a sum with a constant has no integer kernel
            integer = node.op_type in _JOINS and len(activations) == len(node.input)
        if not integer:
            continue
        result = node.output[0]
        after = readers.get(result, [])
        if node.op_type == "MatMul" and len(after) == 1 and _adds_constant(after[0], constants):
            result = after[0].output[0]  # the kernel adds the bias before it rounds
            after = readers.get(result, [])
        if len(after) == 1 and after[0].op_type == "Relu":
            result = after[0].output[0]
        for name in (*activations, result):
            if name not in outputs:
                chosen[name] = None
    passed = _origins(graph)
    return tuple(dict.fromkeys(passed.get(name, name) for name in chosen))


def _only_float(proto: onnx.ModelProto, names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of ``names`` that hold float32: sums and concatenations also reckon with shapes and positions."""
    graph = onnx.shape_inference.infer_shapes(proto).graph
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    return tuple(name for name in names if types.get(name) == TensorProto.FLOAT)


def _adds_constant(node: onnx.NodeProto, constants: Collection[str]) -> bool:
    return node.op_type == "Add" and any(name in constants for name in node.input)


def _origins(graph: onnx.GraphProto) -> dict[str, str]:
    """For each value that only passes integers through: the value it passes on."""
    origin: dict[str, str] = {}
    for node in graph.node:
        if node.op_type in _PASS_THROUGH:
            origin[node.output[0]] = origin.get(node.input[0], node.input[0])
    return origin


def calibrate(
    proto: onnx.ModelProto, weights: Collection[str], samples: Split
) -> Mapping[str, QuantizedValue]:
    """Run ``samples`` through the float graph and turn each value's minimum and maximum into scale and zero point.

    scale = (max - min) / 255 over a range widened to hold zero, zero point = round(-min / scale)
    (Jacob et al. 2018, arXiv:1712.05877, eq. 13), so that zero is exact.

    Raises:
        DataError: a value became NaN or infinite on the calibration samples.
    """
    names = _only_float(proto, observed_names(proto.graph, weights))
    observed = onnx.ModelProto()
    observed.CopyFrom(proto)
    for name in names:
        if all(value.name != name for value in (*observed.graph.input, *observed.graph.output)):
            observed.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    ranges = _ranges(observed, names, samples)
    values = {name: _affine(*ranges[name]) for name in names}
    for passed, source in _origins(proto.graph).items():
        if source in values and passed not in {value.name for value in proto.graph.output}:
            values[passed] = values[source]
    return values


def _ranges(
    observed: onnx.ModelProto, names: tuple[str, ...], samples: Split, batch_size: int = 32
) -> dict[str, tuple[float, float]]:
    session = open_onnx(observed.SerializeToString(), outputs=None).session
    inputs = [value.name for value in observed.graph.input]
    fetched = [name for name in names if name not in inputs]
    lows: dict[str, float] = dict.fromkeys(names, 0.0)
    highs: dict[str, float] = dict.fromkeys(names, 0.0)
    for start in range(0, len(samples), batch_size):
        fed = {
            name: column[start : start + batch_size].numpy()
            for name, column in zip(inputs, samples.inputs, strict=True)
        }
        for name, array in zip(fetched, session.run(fetched, fed) if fetched else (), strict=True):
            fed[name] = array
        for name in names:
            lows[name] = min(lows[name], float(fed[name].min()))
            highs[name] = max(highs[name], float(fed[name].max()))
            if not np.isfinite(fed[name]).all():
                raise DataError(
                    f"calibrate({len(samples)} samples)",
                    f"value {name!r} became NaN or infinite",
                    "Check the calibration samples and the network's weights",
                )
    return {name: (lows[name], highs[name]) for name in names}


def _affine(low: float, high: float) -> QuantizedValue:
    scale = float(np.float32((high - low) / 255)) or 1.0
    return QuantizedValue(scale, int(np.clip(np.rint(-low / scale), 0, 255)))
