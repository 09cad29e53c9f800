"""A float network and its quantized form side by side: how far apart each layer's output is, and what may be why.

Both ONNX graphs come from one export, so a value has the same name in both; ``NAME:d`` is the value after it was
rounded to integers. Samples go through both a batch at a time, and only sums are kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tinypress.diagnosis import LayerApart
from tinypress.errors import ModelError
from tinypress.facts import QuantPlan
from tinypress.runtimes.onnx import OnnxRunner, open_onnx
from tinypress.task import Split

_PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})
_CLAMPS = frozenset({"Relu", "Clip"})
MOST = 1e9
"""What stands for a ratio without bound: a receipt holds finite numbers."""

Array = NDArray[np.floating]
Told = Callable[[str, int, int], None]
"""Told how far the work is: what is done, how much of it, of how much."""


@dataclass(frozen=True)
class _Place:
    """Where a layer stands in the graph: the names of its weight and of its output as later layers read it."""

    layer: str
    weight: str
    value: str
    channels: int  # axis of the output's channels


def layers_apart(
    float_graph: onnx.ModelProto,
    quantized_graph: onnx.ModelProto,
    plan: QuantPlan,
    weights: Mapping[str, Array],
    samples: Split,
    *,
    batch_size: int = 32,
    progress: Told | None = None,
) -> tuple[LayerApart, ...]:
    """Compare every layer of ``plan`` on ``samples``, in the order in which the network runs them.

    Signal-to-noise ratio: 10 log10(Σ x² / Σ (x - c x')²), x of the float graph, x' of the quantized one, c the factor
    of each channel that fits best: where scales were moved from one layer to the next, a channel is the same up to one.

    Args:
        weights: the quantized weights as real numbers, by parameter name, each shaped as the parameter.

    Raises:
        ModelError: the two graphs have no layer in common.
    """
    places = _places(float_graph.graph, plan)
    known = {name for node in quantized_graph.graph.node for name in node.output}
    read = {place.layer: name for place in places for name in _names(place.value, known)[:1]}
    places = tuple(place for place in places if place.layer in read)
    if not places:
        raise ModelError(
            f"layers_apart({len(plan.weights)} weights, {len(samples)} samples)",
            "no layer of the plan stands in both graphs",
            "Write both from one network",
        )
    sums = _observe(float_graph, quantized_graph, places, read, samples, batch_size, progress)
    real = {tensor.name: tensor for tensor in float_graph.graph.initializer}
    return tuple(
        _apart(
            place, plan, numpy_helper.to_array(real[place.weight]), weights[place.weight], sums[place.layer]
        )
        for place in places
    )


def output_snr(float_outputs: Array, quantized_outputs: Array) -> float:
    """Signal-to-noise ratio of a network's outputs in decibels, at most 10 log10 of ``MOST``."""
    noise = float(np.square(float_outputs.astype(np.float64) - quantized_outputs).sum())
    return _decibels(float(np.square(float_outputs.astype(np.float64)).sum()), noise)


def _places(graph: onnx.GraphProto, plan: QuantPlan) -> tuple[_Place, ...]:
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    constants = {tensor.name for tensor in graph.initializer}
    places: dict[str, _Place] = {}
    for node in graph.node:
        if node.op_type not in _PRODUCTS or len(node.input) < 2 or node.input[1] not in plan.weights:
            continue
        if node.input[1] not in constants:
            continue
        value = _result(node.output[0], readers, constants, plan)
        layer = node.input[1].removesuffix(".weight")
        places.setdefault(layer, _Place(layer, node.input[1], value, 1 if node.op_type == "Conv" else -1))
    return tuple(places.values())


def _result(
    value: str, readers: Mapping[str, list[onnx.NodeProto]], constants: set[str], plan: QuantPlan
) -> str:
    """The value that later layers read: after a bias of its own and a clamp that the kernel does in one step."""
    while value not in plan.values and len(after := readers.get(value, [])) == 1:
        node = after[0]
        biased = node.op_type == "Add" and any(name in constants for name in node.input)
        if not biased and node.op_type not in _CLAMPS:
            break
        value = node.output[0]
        if node.op_type in _CLAMPS:
            break
    return value


def _names(value: str, known: set[str]) -> list[str]:
    return [name for name in (f"{value}:d", value) if name in known]


@dataclass
class _Sums:
    """What is added up over the batches for one layer."""

    channels: int  # axis
    clipped: int = 0
    count: int = 0
    low: float = math.inf
    high: float = -math.inf
    products: Array | None = None  # [3, C]: Σ x², Σ x x', Σ x'² of each channel
    largest: Array | None = None  # [C]: of |x|

    def add(self, real: Array, seen: Array, limits: tuple[float, float] | None) -> None:
        self.count += real.size
        self.low, self.high = min(self.low, float(real.min())), max(self.high, float(real.max()))
        if limits is not None:
            self.clipped += int(((real < limits[0]) | (real > limits[1])).sum())
        x, y = (
            np.moveaxis(values, self.channels, 0).reshape(values.shape[self.channels], -1).astype(np.float64)
            for values in (real, seen)
        )
        products = np.stack([(x * x).sum(1), (x * y).sum(1), (y * y).sum(1)])
        self.products = products if self.products is None else self.products + products
        largest = np.abs(x).max(axis=1)
        self.largest = largest if self.largest is None else np.maximum(self.largest, largest)

    @property
    def snr_db(self) -> float:
        assert self.products is not None
        xx, xy, yy = self.products
        explained = np.divide(xy * xy, yy, out=np.zeros_like(yy), where=yy > 0)
        return _decibels(float(xx.sum()), max(0.0, float((xx - explained).sum())))


def _observe(
    float_graph: onnx.ModelProto,
    quantized_graph: onnx.ModelProto,
    places: tuple[_Place, ...],
    read: Mapping[str, str],
    samples: Split,
    batch_size: int,
    progress: Told | None,
) -> dict[str, _Sums]:
    plain = _fetching(float_graph, [place.value for place in places])
    rounded = _fetching(quantized_graph, [read[place.layer] for place in places])
    limits = _limits(quantized_graph, read)
    sums = {place.layer: _Sums(place.channels) for place in places}
    for start in range(0, len(samples), batch_size):
        if progress is not None:
            progress("comparing layer by layer", start, len(samples))
        fed = [column[start : start + batch_size].numpy() for column in samples.inputs]
        real = plain.session.run(
            [place.value for place in places], dict(zip(plain.input_names, fed, strict=True))
        )
        seen = rounded.session.run(
            [read[place.layer] for place in places], dict(zip(rounded.input_names, fed, strict=True))
        )
        for place, x, y in zip(places, real, seen, strict=True):
            sums[place.layer].add(x, y, limits.get(place.layer))
    if progress is not None:
        progress("comparing layer by layer", len(samples), len(samples))
    return sums


def _fetching(proto: onnx.ModelProto, names: list[str]) -> OnnxRunner:
    """``proto`` opened with the values ``names`` as further outputs."""
    observed = onnx.ModelProto()
    observed.CopyFrom(proto)
    there = {value.name for value in observed.graph.output}
    for name in dict.fromkeys(names):
        if name not in there:
            observed.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return open_onnx(observed.SerializeToString(), outputs=None)


def _limits(proto: onnx.ModelProto, read: Mapping[str, str]) -> dict[str, tuple[float, float]]:
    """The least and the largest real number that each rounded output can stand for."""
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    made = {node.output[0]: node for node in proto.graph.node if node.op_type == "DequantizeLinear"}
    found = {}
    for layer, name in read.items():
        node = made.get(name)
        if (
            node is None
            or len(node.input) < 3
            or node.input[1] not in constants
            or node.input[2] not in constants
        ):
            continue
        scale = float(numpy_helper.to_array(constants[node.input[1]]))
        zero = numpy_helper.to_array(constants[node.input[2]])
        info = np.iinfo(zero.dtype)
        # half a step beyond the last integer still rounds to it
        found[layer] = tuple(
            (end - int(zero) + side / 2) * scale for end, side in ((int(info.min), -1), (int(info.max), 1))
        )
    return found  # type: ignore[return-value]  # each tuple has two ends


def _apart(place: _Place, plan: QuantPlan, before: Array, after: Array, sums: _Sums) -> LayerApart:
    if before.shape != after.shape:  # the exporter stores x @ W.T for a Linear without bias
        before = before.T
    exact = before.astype(np.float64)
    outlier, channel = _outlier(sums.largest)
    of_weight = np.abs(exact).reshape(len(exact), -1).max(axis=1)
    weight_outlier, weight_channel = _outlier(of_weight)
    limits = None if plan.values.get(place.value) is None else plan.values[place.value]
    dead = clipped = None
    if limits is not None:
        levels = 2**limits.bits - 1
        reached = (min(0.0, sums.low), max(0.0, sums.high))
        dead = max(0.0, 1 - (reached[1] - reached[0]) / (levels * limits.scale))
        clipped = sums.clipped / max(1, sums.count)
    return LayerApart(
        layer=place.layer,
        bits=plan.weights[place.weight].bits,
        snr_db=sums.snr_db,
        weight_snr_db=_decibels(float(np.square(exact).sum()), float(np.square(exact - after).sum())),
        clipped=clipped,
        dead=dead,
        outlier=outlier,
        outlier_channel=channel,
        weight_outlier=weight_outlier,
        weight_outlier_channel=weight_channel,
    )


def _outlier(largest: Array | None) -> tuple[float, int]:
    if largest is None or largest.size == 0:
        return 1.0, 0
    middle, channel = float(np.median(largest)), int(np.argmax(largest))
    if middle == 0:
        return (MOST if largest[channel] > 0 else 1.0), channel
    return min(MOST, float(largest[channel]) / middle), channel


def _decibels(signal: float, noise: float) -> float:
    if signal == 0:
        return 0.0 if noise else 10 * math.log10(MOST)
    return 10 * math.log10(min(MOST, signal / noise)) if noise else 10 * math.log10(MOST)
