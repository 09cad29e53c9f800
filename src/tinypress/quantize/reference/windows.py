"""The windows that a pooling looks at, laid side by side.

Axes: N samples, C channels, * places of the output, w places of one window, row by row.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper


def attributes(node: onnx.NodeProto) -> dict[str, object]:
    """The attributes of ``node`` by name."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def automatic_padding(node: onnx.NodeProto) -> bytes:
    """How ``node`` pads by itself, as ``auto_pad`` has it; nothing where the padding is written as numbers."""
    how = next((a.s for a in node.attribute if a.name == "auto_pad"), b"")
    return b"" if how == b"NOTSET" else how


def whole_numbers(given: object, default: list[int]) -> list[int]:
    """An attribute that is a list of integers, or ``default`` where it is missing."""
    return [int(value) for value in given] if isinstance(given, list | tuple) else default


def windows(
    x_NC: NDArray[np.int64], node: onnx.NodeProto
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """The windows [N, C, *, w] of a pooling ``node`` over ``x_NC`` [N, C, ...].

    Returns:
        the numbers, which of them are no padding [*, w], and which lie within the declared padding [*, w].
    """
    given = attributes(node)
    size = list(x_NC.shape[2:])
    kernel = whole_numbers(given.get("kernel_shape"), [])
    ones = [1] * len(kernel)
    strides, dilations = (whole_numbers(given.get(name), ones) for name in ("strides", "dilations"))
    pads = whole_numbers(given.get("pads"), [0] * 2 * len(kernel))
    before, after = pads[: len(kernel)], pads[len(kernel) :]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    count = [
        _places(n + b + a, r, s, bool(given.get("ceil_mode")), n + b)
        for n, b, a, r, s in zip(size, before, after, reach, strides, strict=True)
    ]
    # the padding that rounding up may need is beyond the declared one
    needed = [(c - 1) * s + r for c, s, r in zip(count, strides, reach, strict=True)]
    extra = [max(0, m - n - b) for m, n, b in zip(needed, size, before, strict=True)]
    padded = np.pad(x_NC, [(0, 0), (0, 0), *zip(before, extra, strict=True)])
    real = np.pad(np.ones(size, bool), list(zip(before, extra, strict=True)))
    declared = [min(e, a) for e, a in zip(extra, after, strict=True)]
    inside = np.pad(
        np.ones([n + b + d for n, b, d in zip(size, before, declared, strict=True)], bool),
        [(0, e - d) for e, d in zip(extra, declared, strict=True)],
    )
    parts = []
    for place in itertools.product(*(range(k) for k in kernel)):
        cut = tuple(
            slice(p * d, p * d + (c - 1) * s + 1, s)
            for p, d, c, s in zip(place, dilations, count, strides, strict=True)
        )
        parts.append((padded[(slice(None), slice(None), *cut)], real[cut], inside[cut]))
    numbers, are_real, are_inside = (np.stack(part, axis=-1) for part in zip(*parts, strict=True))
    return numbers, are_real, are_inside


def _places(size: int, reach: int, stride: int, round_up: bool, starts_before: int) -> int:
    if not round_up:
        return (size - reach) // stride + 1
    count = math.ceil((size - reach) / stride) + 1
    # a window has to begin in the data or in the padding before it
    return count - 1 if (count - 1) * stride >= starts_before else count
