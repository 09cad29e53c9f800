"""Four neighbouring pixels of an image as the channels of one, for kernels that read four bytes at a time.

ONNX Runtime's convolution by 8-bit dot products takes four input channels a step. A network's first layer reads three,
or one: there it copies every window first (im2col) and multiplies matrices, which takes two to three times as long.
So the image [N, C, H, W] is read as [N, 4C, H, W/4], and the 4/stride outputs that lie beside each other become the
channels of one as well. Both are only other shapes of the same bytes; weights that a group has too many are zeros, so
that every sum stays what it was, to the bit.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from tinypress.bits import pack, unpack
from tinypress.facts import QuantizedWeight, QuantPlan
from tinypress.quantize.fused import Fused, fused_nodes
from tinypress.quantize.layer import dequantize_layer_weights
from tinypress.quantize.reference.windows import attributes, automatic_padding, whole_numbers
from tinypress.ship.moved import Around, Moved, put

GROUP = 4
_WIDEST = 7  # kernel; beyond it few of a group's products are by weights that are not zeros
_LEAST_OUTPUTS = 16
_GROWTH = 0.01  # a small network's file should not be larger to be faster


@dataclass(frozen=True)
class _Layer:
    """A convolution that reads an image, and what its outputs come to."""

    kernel: Fused
    node: onnx.NodeProto
    channels: int
    image: tuple[int, int]  # rows, and groups of pixels in each
    height: int  # of its outputs
    width: int
    stride: int
    pads: tuple[int, int, int, int]  # top, left, bottom, right


def group_pixels(graph: onnx.GraphProto, plan: QuantPlan, growth: float = _GROWTH) -> QuantPlan:
    """Change the first convolutions of ``graph``, in place, where that pays; the plan of the changed graph.

    ``growth`` is the share of all weights that a layer may grow by.
    """
    weights, moves = dict(plan.weights), []
    for layer in _layers(graph, plan, growth):
        name = layer.node.input[1]
        weights[name] = _widened(layer, plan.weights[name])
        moves.append(_regroup(graph, layer, plan, weights[name]))
    return replace(plan, weights=weights, values={**plan.values, **put(graph, moves)}) if moves else plan


def _layers(graph: onnx.GraphProto, plan: QuantPlan, growth: float) -> list[_Layer]:
    stored = {tensor.name for tensor in graph.initializer}
    readers = Counter(name for node in graph.node for name in node.input)
    images = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in graph.input
    }
    total = sum(prod(weight.shape) for weight in plan.weights.values())
    found = []
    for kernel in fused_nodes(graph, plan.weights):
        node = graph.node[kernel.nodes[0]]
        image = images.get(kernel.inputs[0], [])
        rounded = {*kernel.inputs, kernel.output} <= set(plan.values)
        if kernel.kind != "product" or node.op_type != "Conv" or len(image) != 4 or not rounded:
            continue
        if node.input[1] != kernel.weight:  # it reads the weight of another, turned
            continue
        layer = _layer(kernel, node, image, plan.weights[node.input[1]].shape)
        own = [name for name in (kernel.weight, kernel.bias) if name is not None]
        if layer is None or any(name not in stored or readers[name] > 1 for name in own):
            continue  # a weight that another layer reads as well keeps its shape
        shape = plan.weights[node.input[1]].shape
        if prod(_wide_shape(layer, shape)) - prod(shape) <= growth * total:
            found.append(layer)
    return found


def _layer(kernel: Fused, node: onnx.NodeProto, image: list[int], shape: tuple[int, ...]) -> _Layer | None:
    given = attributes(node)
    strides = whole_numbers(given.get("strides"), [1, 1])
    top, left, bottom, right = whole_numbers(given.get("pads"), [0, 0, 0, 0])
    plain = (
        strides[1] in (1, 2, GROUP)
        and whole_numbers(given.get("dilations"), [1, 1]) == [1, 1]
        and given.get("group", 1) == 1
        and not automatic_padding(node)
    )
    _, channels, height, width = image
    high, wide = shape[2:]
    if not plain or min(image[1:]) < 1 or channels % GROUP == 0 or width % GROUP or max(high, wide) > _WIDEST:
        return None
    down = (height + top + bottom - high) // strides[0] + 1
    across = (width + left + right - wide) // strides[1] + 1
    outputs = shape[0] * (GROUP // strides[1])
    if across * strides[1] != width or left >= wide or outputs % 4 or outputs < _LEAST_OUTPUTS:
        return None  # outputs that do not come in whole groups, or that the kernel does not write
    return _Layer(
        kernel, node, channels, (height, width // GROUP), down, across, strides[1], (top, left, bottom, right)
    )


def _reach(layer: _Layer, wide: int) -> tuple[int, int]:
    """The first and last group of pixels that a group of outputs reads, counted from its own."""
    last = GROUP - layer.stride - layer.pads[1] + wide - 1
    return -layer.pads[1] // GROUP, last // GROUP


def _wide_shape(layer: _Layer, shape: tuple[int, ...]) -> tuple[int, ...]:
    outputs, channels, high, wide = shape
    first, last = _reach(layer, wide)
    return outputs * (GROUP // layer.stride), channels * GROUP, high, last - first + 1


def _regroup(graph: onnx.GraphProto, layer: _Layer, plan: QuantPlan, wide: QuantizedWeight) -> Around:
    """Make the layer one of groups, with the weight ``wide``; what has to be moved around it."""
    conv, beside = layer.node, GROUP // layer.stride
    image, answer = layer.kernel.inputs[0], layer.kernel.output
    before = Moved(image, plan.values[image], f"{answer}:before")
    before.reshape(-1, layer.channels, *layer.image, GROUP).transpose(0, 2, 3, 1, 4)
    before.reshape(-1, *layer.image, layer.channels * GROUP).transpose(0, 3, 1, 2)
    after = Moved(f"{answer}:groups", plan.values[answer], f"{answer}:after").transpose(0, 2, 3, 1)
    after.reshape(-1, layer.height, layer.width, wide.shape[0] // beside).transpose(0, 3, 1, 2).named(answer)

    first, last = _reach(layer, plan.weights[conv.input[1]].shape[3])
    top, _, bottom, _ = layer.pads
    given = attributes(conv)
    given |= {
        "kernel_shape": wide.shape[2:],
        "strides": [whole_numbers(given.get("strides"), [1, 1])[0], 1],
        "pads": [top, -first, bottom, last],
    }
    conv.ClearField("attribute")
    conv.attribute.extend(helper.make_attribute(key, value) for key, value in given.items())
    conv.input[0] = before.end
    graph.node[layer.kernel.nodes[-1]].output[0] = after.begin
    stored = {tensor.name: tensor for tensor in graph.initializer}
    stored[conv.input[1]].CopyFrom(
        numpy_helper.from_array(dequantize_layer_weights(wide).numpy(), conv.input[1])
    )
    if layer.kernel.bias is not None:
        bias = np.tile(numpy_helper.to_array(stored[layer.kernel.bias]), beside)
        stored[layer.kernel.bias].CopyFrom(numpy_helper.from_array(bias, layer.kernel.bias))
    return Around(layer.kernel.nodes[0], layer.kernel.nodes[-1], before, after)


def _widened(layer: _Layer, weight: QuantizedWeight) -> QuantizedWeight:
    """The weight [O, C, h, w] as one of groups, [O * outputs beside each other, C * 4, h, groups]."""
    outputs, channels, high, wide = weight.shape
    beside = GROUP // layer.stride
    first, last = _reach(layer, wide)
    q = unpack(weight.packed, 8, prod(weight.shape), signed=True).reshape(weight.shape).numpy()
    groups = np.zeros((beside, outputs, channels, GROUP, high, last - first + 1), np.int8)
    for output in range(beside):
        for place in range(wide):
            group, pixel = divmod(output * layer.stride - layer.pads[1] + place, GROUP)
            groups[output, :, :, pixel, :, group - first] = q[:, :, :, place]
    shape = _wide_shape(layer, weight.shape)
    rows = 1 if weight.axis is None else beside
    return replace(
        weight,
        packed=pack(torch.from_numpy(groups.reshape(shape)), 8),
        shape=shape,
        scale=weight.scale.repeat(rows),
        zero_point=weight.zero_point.repeat(rows),
    )
