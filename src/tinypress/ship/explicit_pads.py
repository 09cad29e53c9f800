"""Padding that a file leaves to whoever runs it (``auto_pad``) as the numbers that it comes to."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import helper

from tinypress.onnx_shapes import shapes_of
from tinypress.quantize.reference.windows import attributes, automatic_padding, whole_numbers

_PADDED = frozenset({"Conv", "AveragePool", "MaxPool"})


def with_explicit_pads(proto: onnx.ModelProto) -> onnx.ModelProto:
    """``proto``, changed in place: SAME and VALID become numbers where the sizes of what is padded are known."""
    padded = [node for node in proto.graph.node if node.op_type in _PADDED and automatic_padding(node)]
    if not padded:
        return proto
    sizes = shapes_of(proto)
    for node in padded:
        given = attributes(node)
        size = list(sizes.get(node.input[0], ()))[2:]
        kernel = whole_numbers(given.get("kernel_shape"), [])
        if node.op_type == "Conv":
            kernel = kernel or list(sizes.get(node.input[1], ()))[2:]
        if not size or min(size) < 1 or len(size) != len(kernel):
            continue
        given["pads"] = _pads(given, size, kernel)
        del given["auto_pad"]
        node.ClearField("attribute")
        node.attribute.extend(helper.make_attribute(name, value) for name, value in given.items())
    return proto


def _pads(given: dict[str, object], size: Sequence[int], kernel: Sequence[int]) -> list[int]:
    """All at the beginnings, then all at the ends: so many that ceil(size / stride) windows fit."""
    if given["auto_pad"] == b"VALID":
        return [0] * 2 * len(size)
    ones = [1] * len(size)
    strides, dilations = (whole_numbers(given.get(name), ones) for name in ("strides", "dilations"))
    total = [
        max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n)
        for n, k, s, d in zip(size, kernel, strides, dilations, strict=True)
    ]
    less, more = [pad // 2 for pad in total], [pad - pad // 2 for pad in total]
    return less + more if given["auto_pad"] == b"SAME_UPPER" else more + less
