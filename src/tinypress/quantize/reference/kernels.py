"""The integer kernels: from the 8-bit integers that a kernel reads to those that it writes.

With ``float32`` each repeats the arithmetic of ONNX Runtime's kernel, operation by operation in float32, so that the
integers are the same; with ``fixed`` it is that of integer-only kernels. q is always an integer, z its zero point.

Axes: N samples, O output and I input channels or features, * places.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from tinypress.bits import unpack
from tinypress.facts import QuantizedValue, QuantizedWeight
from tinypress.quantize.reference.windows import attributes, whole_numbers, windows
from tinypress.quantize.requantize import (
    Requantization,
    fixed_point,
    requantize,
    rounded,
    saturated,
    times_fixed_point,
)

Bytes = NDArray[np.uint8]
Reals = NDArray[np.float32]
Sums = NDArray[np.int64]
Given = tuple[Bytes, QuantizedValue]

_HEADROOM = 20  # bits by which a sum's operands are moved up before they are scaled: 8 + 20 + 1 fit into 32


def dequantize(q: Bytes, value: QuantizedValue) -> Reals:
    """What the integers stand for: (q - z) * scale in float32."""
    return centred(q, value).astype(np.float32) * np.float32(value.scale)


def quantize(real: Reals, value: QuantizedValue) -> Bytes:
    """round(real / scale) + z, halves to the even neighbour."""
    return rounded(real / np.float32(value.scale), value)


def centred(q: Bytes, value: QuantizedValue) -> Sums:
    """q - z."""
    return q.astype(np.int64) - value.zero_point


def integers_of(weight: QuantizedWeight) -> NDArray[np.int64]:
    """The weight's integers without their zero point, in its shape."""
    count = int(np.prod(weight.shape))
    q = (
        unpack(weight.packed, weight.bits, count, signed=weight.scheme == "symmetric")
        .numpy()
        .astype(np.int64)
    )
    zero = weight.zero_point.numpy().astype(np.int64)
    shape = [-1 if place == weight.axis else 1 for place in range(len(weight.shape))]
    result: NDArray[np.int64] = q.reshape(weight.shape) - (
        zero if weight.axis is None else zero.reshape(shape)
    )
    return result


def product_sums(
    node: onnx.NodeProto, x: Given, weight: QuantizedWeight, bias: NDArray[np.int32] | None
) -> Sums:
    """The 32-bit sums of a convolution or a product with the weight's rows: [N, O, *] or [N, ..., O].

    They are worked out in float64, which holds every integer up to 2**53.
    """
    w_OI = torch.from_numpy(integers_of(weight)).double()
    x_N = torch.from_numpy(centred(*x)).double()
    if node.op_type == "Conv":
        sums = _convolve(node, x_N, w_OI)
        along = (1, -1, *[1] * (sums.ndim - 2))
    else:
        sums = (x_N @ w_OI.T).long().numpy()
        along = (-1,)
    return sums if bias is None else sums + bias.astype(np.int64).reshape(along)


def _convolve(node: onnx.NodeProto, x_N: torch.Tensor, w_OI: torch.Tensor) -> Sums:
    given = attributes(node)
    count = w_OI.dim() - 2
    ones = [1] * count
    pads = whole_numbers(given.get("pads"), [0] * 2 * count)
    # pads are first all beginnings, then all ends; torch wants pairs, the last dimension first
    pairs = [pad for place in reversed(range(count)) for pad in (pads[place], pads[count + place])]
    functions = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}
    group = given.get("group", 1)
    assert isinstance(group, int)
    sums: Sums = (
        functions[count](
            torch.nn.functional.pad(x_N, pairs),
            w_OI,
            None,
            whole_numbers(given.get("strides"), ones),
            0,
            whole_numbers(given.get("dilations"), ones),
            group,
        )
        .long()
        .numpy()
    )
    return sums


def scales_along(node: onnx.NodeProto, x: QuantizedValue, weight: QuantizedWeight, dims: int) -> Reals:
    """Input scale times weight scale in float32, as it broadcasts against the sums of ``dims`` dimensions."""
    scales: Reals = np.float32(x.scale) * weight.scale.numpy().astype(np.float32)
    if weight.axis is None:
        return scales.reshape(())
    return scales.reshape((1, -1, *[1] * (dims - 2)) if node.op_type == "Conv" else (-1,))


def add(a: Given, b: Given, output: QuantizedValue, requantization: Requantization) -> Bytes:
    """q = z + round(a's real + b's real over the output's scale).

    ``float32``: z_c - (r_a z_a + r_b z_b) + r_b q_b + r_a q_a with r = scale / output scale, in fused multiply-adds.
    ``fixed``: both are moved up 20 bits and brought to twice the larger scale first, as TFLite's ADD does.
    """
    if requantization == "fixed":
        widest = 2 * max(_double(value.scale) for _, value in (a, b))
        parts = [
            times_fixed_point(
                centred(q, value) << _HEADROOM, *fixed_point(np.asarray(_double(value.scale) / widest))
            )
            for q, value in (a, b)
        ]
        last = fixed_point(np.asarray(widest / (2.0**_HEADROOM * _double(output.scale))))
        return saturated(times_fixed_point(parts[0] + parts[1], *last), output)
    (q_a, of_a), (q_b, of_b) = a, b
    ratio_a, ratio_b = (np.float32(of.scale) / np.float32(output.scale) for of in (of_a, of_b))
    fixed = np.float32(output.zero_point) - _fma(
        np.float32(of_a.zero_point), ratio_a, ratio_b * np.float32(of_b.zero_point)
    )
    inner = _fma(q_b.astype(np.float32), ratio_b, fixed)
    outer = _fma(q_a.astype(np.float32), ratio_a, inner)
    # the output's zero point is in the sum already
    return _clamped(outer)


def _double(scale: float) -> np.float64:
    """A scale as the float32 that is stored."""
    return np.float64(np.float32(scale))


def _fma(a: NDArray[np.float32] | np.float32, b: np.float32, c: NDArray[np.float32] | np.float32) -> Reals:
    """a * b + c rounded once: a is an 8-bit integer, so the product is exact in float64, and so is nearly any sum."""
    exact = np.asarray(a, np.float64) * np.float64(b) + np.asarray(c, np.float64)
    return exact.astype(np.float32)


def _clamped(q: Reals) -> Bytes:
    """Real numbers of steps, their zero point added, to integers: halves to the even neighbour."""
    clamped: Bytes = np.clip(np.rint(q), 0, 255).astype(np.uint8)
    return clamped


def multiply(a: Given, b: Given, output: QuantizedValue, requantization: Requantization) -> Bytes:
    """q = z + round((q_a - z_a)(q_b - z_b) M); ``float32`` adds z before it rounds."""
    sums = centred(*a) * centred(*b)
    scales = np.float32(a[1].scale) * np.float32(b[1].scale)
    if requantization == "fixed":
        return requantize(sums, np.asarray(scales), output, "fixed")
    moved = sums.astype(np.float32) * (scales / np.float32(output.scale)) + np.float32(output.zero_point)
    return _clamped(moved)


def concatenate(
    parts: Sequence[Given], axis: int, output: QuantizedValue, requantization: Requantization
) -> Bytes:
    """Each part at the output's scale, end to end."""
    moved = []
    for q, value in parts:
        if value == output:
            moved.append(q)
        elif requantization == "float32":
            moved.append(quantize(dequantize(q, value), output))
        else:
            moved.append(requantize(centred(q, value), np.asarray(np.float32(value.scale)), output, "fixed"))
    return np.concatenate(moved, axis)


def average(node: onnx.NodeProto, x: Given, output: QuantizedValue, requantization: Requantization) -> Bytes:
    """The mean over all places, or over each window.

    ``float32``: the global mean is a sum of integers times M; a windowed one is a sum of real numbers in the order
    of the window, and z is added before it rounds.
    """
    q, value = x
    if node.op_type == "GlobalAveragePool":
        places = tuple(range(2, q.ndim))
        count = int(np.prod(q.shape[2:]))
        sums = centred(q, value).sum(places, keepdims=True)
        if requantization == "fixed":
            return requantize(sums, np.asarray(np.float32(value.scale) / np.float32(count)), output, "fixed")
        factor = np.float32(value.scale) / (np.float32(output.scale) * np.float32(count))
        return rounded(sums.astype(np.float32) * factor, output)
    numbers, real, inside = windows(centred(q, value), node)
    counted = inside if attributes(node).get("count_include_pad") else real
    counts = counted.sum(-1)
    if requantization == "fixed":
        scales = np.float32(value.scale) / counts.astype(np.float32)
        return requantize(numbers.sum(-1), scales, output, "fixed")
    total = np.zeros(numbers.shape[:-1], np.float32)
    for place in range(numbers.shape[-1]):
        total = total + numbers[..., place].astype(np.float32) * np.float32(value.scale)
    steps = total / counts.astype(np.float32) / np.float32(output.scale) + np.float32(output.zero_point)
    return _clamped(steps)


def maximum(node: onnx.NodeProto, q: Bytes) -> Bytes:
    """The largest integer of each window; padding is never the largest."""
    numbers, real, _ = windows(q.astype(np.int64), node)
    largest: Bytes = np.where(real, numbers, -1).max(-1).astype(np.uint8)
    return largest


def look_up(node: onnx.NodeProto, x: Given, output: QuantizedValue) -> Bytes:
    """A function of one number as a table of its 256 results; both requantizations have the same."""
    every = dequantize(np.arange(256, dtype=np.uint8), x[1])
    if node.op_type == "Sigmoid":
        results = (1 / (1 + np.exp(-every.astype(np.float64)))).astype(np.float32)
    else:
        slope = attributes(node).get("alpha", 0.01)
        assert isinstance(slope, float)
        results = np.where(every >= 0, every, every * np.float32(slope))
    table: Bytes = quantize(results, output)
    found: Bytes = table[x[0]]
    return found
