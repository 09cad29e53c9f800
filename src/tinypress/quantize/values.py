"""Which values of the float graph become integers, and from which observed range.

Integer kernels exist for products, sums, concatenation and pooling. Their inputs and outputs become 8-bit;
shape operators and maximum pooling pass integers through with the scale they came with; the network's output
stays float, so that the last layer's result is not rounded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
import onnx
import onnx.shape_inference
from numpy.typing import NDArray
from onnx import TensorProto, helper

from tinypress.errors import InputError
from tinypress.facts import QuantizedValue
from tinypress.quantize.clipping import SHARE
from tinypress.quantize.ranges import Ranges, check_ranges, quantized_values
from tinypress.runtimes.onnx import open_onnx
from tinypress.task import Split

PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})
_JOINS = frozenset({"Add", "Concat", "GlobalAveragePool", "AveragePool"})
_BATCH, _BYTES = 32, 1 << 28  # samples a step, and what all observed values of one step may take
_PASS_THROUGH = frozenset({"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"})


def observed_names(graph: onnx.GraphProto, weights: Collection[str]) -> tuple[str, ...]:
    """Values that need a scale of their own: inputs and outputs of integer kernels, in graph order.

    The output of a product whose only reader is a Relu is left out: the kernel clamps in the same step.
    """
    outputs = {value.name for value in graph.output}
    chosen: dict[str, None] = {}
    for _, activations, result in _integer_kernels(graph, weights):
        for name in (*activations, result):
            if name not in outputs:
                chosen[name] = None
    passed = _origins(graph)
    return tuple(dict.fromkeys(passed.get(name, name) for name in chosen))


def results(graph: onnx.GraphProto, weights: Collection[str]) -> dict[str, str]:
    """For each layer whose weight is in ``weights``: the value that its integer kernel makes."""
    return {
        node.input[1].removesuffix(".weight"): result
        for node, _, result in _integer_kernels(graph, weights)
        if node.op_type in PRODUCTS
    }


def _integer_kernels(
    graph: onnx.GraphProto, weights: Collection[str]
) -> Iterator[tuple[onnx.NodeProto, list[str], str]]:
    """Each node with an integer kernel, the activations it reads, and what that kernel makes of them."""
    constants = {tensor.name for tensor in graph.initializer} | {
        name for node in graph.node if node.op_type == "Constant" for name in node.output
    }
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
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
        yield node, activations, result


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
    proto: onnx.ModelProto,
    weights: Collection[str],
    samples: Split,
    ranges: Ranges = "minmax",
    other_ranges: Mapping[str, Ranges] | None = None,
    percentile: float = SHARE,
) -> Mapping[str, QuantizedValue]:
    """Run ``samples`` through the float graph and turn each value's range into scale and zero point.

    scale = (max - min) / 255 over a range widened to hold zero, zero point = round(-min / scale)
    (Jacob et al. 2018, arXiv:1712.05877, eq. 13), so that zero is exact.

    Args:
        ranges: how the range of a value is chosen; ``ranges.py`` lists the ways.
        other_ranges: another way for single values: by the name of the layer that makes it, or of the value itself.
        percentile: the share of the numbers that ``percentile`` keeps inside at each end.

    Raises:
        InputError: a name in ``other_ranges`` is of no value that is quantized, or a setting is out of range.
        DataError: a value became NaN or infinite on the calibration samples.
    """
    call = f"calibrate({len(samples)} samples, ranges={ranges!r})"
    others = dict(other_ranges or {})
    check_ranges(call, (ranges, *others.values()), percentile)
    names = _only_float(proto, observed_names(proto.graph, weights))
    methods = dict.fromkeys(names, ranges)
    made_by = {name: value for name, value in results(proto.graph, weights).items() if value in methods}
    for name, method in others.items():
        value = made_by.get(name, name)
        if value not in methods:
            raise InputError(
                call,
                f"{name!r} makes no value that is quantized",
                f"Choose a layer of {list(made_by)} or a value of {list(names)}",
            )
        methods[value] = method
    observed = onnx.ModelProto()
    observed.CopyFrom(proto)
    for name in names:
        if all(value.name != name for value in (*observed.graph.input, *observed.graph.output)):
            observed.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    values = quantized_values(_batches(observed, names, samples), methods, percentile)
    for passed, source in _origins(proto.graph).items():
        if source in values and passed not in {value.name for value in proto.graph.output}:
            values[passed] = values[source]
    return values


def _batches(
    observed: onnx.ModelProto, names: tuple[str, ...], samples: Split
) -> Iterator[dict[str, NDArray[np.floating]]]:
    """What the values in ``names`` are for each batch of the samples, batches so small that all fit into memory."""
    session = open_onnx(observed.SerializeToString(), outputs=None).session
    inputs = [value.name for value in observed.graph.input]
    fetched = [name for name in names if name not in inputs]

    def run(rows: slice) -> dict[str, NDArray[np.floating]]:
        columns = zip(inputs, samples.inputs, strict=True)
        fed = {name: column[rows].numpy() for name, column in columns}
        found = session.run(fetched, fed) if fetched else ()
        return {**fed, **dict(zip(fetched, found, strict=True))}

    first = run(slice(0, 1))
    batch_size = max(1, min(_BATCH, _BYTES // max(1, sum(array.nbytes for array in first.values()))))
    yield first
    for start in range(1, len(samples), batch_size):
        yield run(slice(start, start + batch_size))
