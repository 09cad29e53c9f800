"""Which values of the float graph become integers, and from which observed range.

Which nodes have an integer kernel is in ``fused.py``. Their inputs become 8-bit, and what they write where integers
are read; shape operators and maximum pooling pass integers through with the scale they came with; the network's output
stays float, so that the last layer's result is not rounded.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

import numpy as np
import onnx
import onnx.shape_inference
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from tinypress.errors import InputError
from tinypress.facts import QuantizedValue
from tinypress.quantize.affine import next_power_of_two
from tinypress.quantize.clipping import SHARE
from tinypress.quantize.fused import fused_nodes, needed_nodes, origins
from tinypress.quantize.ranges import Ranges, check_ranges, quantized_values
from tinypress.runtimes.onnx import open_onnx
from tinypress.task import Split

_SMALL = 1024  # numbers of a constant that may be a shape
_BATCH, _BYTES = 32, 1 << 28  # samples a step, and what all observed values of one step may take


def observed_names(graph: onnx.GraphProto, weights: Collection[str]) -> tuple[str, ...]:
    """Values that need a scale of their own: inputs of integer kernels and what they write in integers, in graph order.

    The output of a product whose only reader is a Relu or a Clip is left out: the kernel clamps in the same step.
    """
    outputs = {value.name for value in graph.output}
    chosen: dict[str, None] = {}
    for kernel in needed_nodes(graph, weights):
        if kernel.kind != "pass":
            names = (*kernel.inputs, *([kernel.output] if kernel.rounds else ()))
            chosen |= dict.fromkeys(name for name in names if name not in outputs)
    passed = origins(graph)
    return tuple(dict.fromkeys(passed.get(name, name) for name in chosen))


def results(graph: onnx.GraphProto, weights: Collection[str]) -> dict[str, str]:
    """For each layer whose weight is in ``weights``: the value that its integer kernel makes."""
    return {
        kernel.weight.removesuffix(".weight"): kernel.output
        for kernel in fused_nodes(graph, weights)
        if kernel.weight is not None
    }


def _only_float(proto: onnx.ModelProto, names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of ``names`` that hold float32: sums and concatenations also reckon with shapes and positions."""
    graph = onnx.shape_inference.infer_shapes(_without_weights(proto)).graph
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    return tuple(name for name in names if types.get(name) == TensorProto.FLOAT)


def _without_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with its large constants as inputs: their numbers tell no type, and would be copied twice."""
    light = onnx.ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import)
    light.graph.name = proto.graph.name
    for part in ("node", "input", "output", "value_info"):
        getattr(light.graph, part).extend(getattr(proto.graph, part))
    for tensor in proto.graph.initializer:
        if math.prod(tensor.dims) <= _SMALL:
            light.graph.initializer.append(tensor)
        else:
            light.graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    return light


def calibrate(
    proto: onnx.ModelProto,
    weights: Collection[str],
    samples: Split,
    ranges: Ranges = "minmax",
    other_ranges: Mapping[str, Ranges] | None = None,
    percentile: float = SHARE,
    powers_of_two: bool = False,
) -> Mapping[str, QuantizedValue]:
    """Run ``samples`` through the float graph and turn each value's range into scale and zero point.

    scale = (max - min) / 255 over a range widened to hold zero, zero point = round(-min / scale)
    (Jacob et al. 2018, arXiv:1712.05877, eq. 13), so that zero is exact.

    Args:
        ranges: how the range of a value is chosen; ``ranges.py`` lists the ways.
        other_ranges: another way for single values: by the name of the layer that makes it, or of the value itself.
        percentile: the share of the numbers that ``percentile`` keeps inside at each end.
        powers_of_two: scales are rounded up to powers of two, but for values that a Clip holds below their new end:
            it would then be left to do, in float.

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
    bounds = {kernel.output: kernel.high for kernel in fused_nodes(proto.graph, weights)}
    values = quantized_values(_batches(observed, names, samples), methods, percentile)
    for name, own in values.items():
        bound = bounds.get(name, np.inf)
        coarser = _power_of_two(own)
        fits = powers_of_two and (coarser.zero_point != 0 or coarser.scale * 255 <= bound)
        values[name] = coarser if fits else _within(own, bound)
    for passed, source in origins(proto.graph).items():
        if source in values and passed not in {value.name for value in proto.graph.output}:
            values[passed] = values[source]
    return values


def _within(value: QuantizedValue, bound: float) -> QuantizedValue:
    """``value`` with its largest integer not above ``bound``: else the runtime had to keep the Clip at that bound."""
    scale = np.float32(value.scale)
    if value.zero_point != 0 or scale * np.float32(255) <= bound:
        return value
    return replace(value, scale=float(np.nextafter(scale, np.float32(0))))


def _power_of_two(value: QuantizedValue) -> QuantizedValue:
    """``value`` on the next coarser scale that is a power of two: with the same zero point nothing clips."""
    return replace(value, scale=float(next_power_of_two(torch.tensor(value.scale, dtype=torch.float32))))


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
