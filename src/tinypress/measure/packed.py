"""Reads weights of few bits out of ONNX Runtime's packed operators.

Axes: C rows, G blocks of one row, b weights of one block, K weights of one row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

_TABLE_SCALES = ":s"  # what the writer adds to a table's name
PACKED = frozenset({"MatMulNBits", "GatherBlockQuantized"})
AT_RUN_TIME = frozenset({"MatMulInteger", "ConvInteger", "DynamicQuantizeLSTM"})


def packed_weights(
    graph: onnx.GraphProto,
) -> tuple[dict[str, tuple[NDArray[np.float32], int]], frozenset[str]]:
    """The real numbers [C, K] and bits of each stored tensor that a packed operator reads, and the names of the
    scales and zero points beside them."""
    arrays = {tensor.name: tensor for tensor in graph.initializer}
    views = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Reshape"}
    widths = {
        node.input[0]: int(numpy_helper.to_array(arrays[node.input[2]])[0])
        for node in graph.node
        if node.op_type == "Slice" and node.input[2] in arrays
    }
    found: dict[str, tuple[NDArray[np.float32], int]] = {}
    constants: set[str] = set()
    for node in graph.node:
        table = arrays.get(node.input[0]) if node.op_type == "Gather" else None
        if table is not None and table.data_type == TensorProto.UINT8:
            scales = arrays.get(f"{table.name}{_TABLE_SCALES}")
            if scales is not None:  # rows of a table whose integers stand for q - 128 times the row's scale
                real = numpy_helper.to_array(table).astype(np.float32) - 128
                found[table.name] = (real * numpy_helper.to_array(scales).reshape(-1, 1), 8)
                constants.add(scales.name)
            continue
        if node.op_type in AT_RUN_TIME:
            found |= {name: (real, 8) for name, real in _integers(node, arrays, constants)}
            continue
        if node.op_type not in PACKED:
            continue
        product = node.op_type == "MatMulNBits"
        data = node.input[1] if product else node.input[0]
        name = views.get(data, data)
        further = [given for given in node.input[2:4] if given]
        constants |= set(further)
        bits, size = _attribute(node, "bits"), _attribute(node, "block_size")
        scale = numpy_helper.to_array(arrays[further[0]])
        blocks = _unpacked(numpy_helper.to_array(arrays[name]).reshape(*scale.shape, -1), bits, size)
        zero = np.full(scale.shape, 1 << (bits - 1), np.float32)
        if len(further) > 1:
            zero = _unpacked(numpy_helper.to_array(arrays[further[1]]), bits, scale.shape[1]).astype(
                np.float32
            )
        rows = ((blocks - zero[..., None]) * scale[..., None]).reshape(len(scale), -1)
        width = _attribute(node, "K") if product else widths.get(node.output[0], rows.shape[1])
        found[name] = (rows[:, :width].astype(np.float32), bits)
    return found, frozenset(constants)


def _integers(
    node: onnx.NodeProto, arrays: Mapping[str, TensorProto], constants: set[str]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The weights of a layer that rounds its input at run time, as real numbers in the shape that they have there.

    Names of their scales and zero points go into ``constants``.
    """
    recurrent = node.op_type == "DynamicQuantizeLSTM"
    weights = [(node.input[1], node.input[3])]
    if recurrent:
        weights = [(node.input[1], node.input[9]), (node.input[2], node.input[11])]
    for name, zero in weights:
        if name not in arrays:
            continue
        scale = numpy_helper.to_array(arrays[f"{name}{_TABLE_SCALES}"]).astype(np.float32)
        offset = numpy_helper.to_array(arrays[zero]).astype(np.float32)
        constants |= {f"{name}{_TABLE_SCALES}", zero}
        integers = numpy_helper.to_array(arrays[name]).astype(np.float32)
        if recurrent:  # [D, I, G] with scales [D, G]
            yield name, (integers - offset[:, None]) * scale[:, None]
        elif node.op_type == "ConvInteger":  # [O, I, *] with scales [1, O, *]
            yield name, (integers - offset) * scale.reshape(-1, *[1] * (integers.ndim - 1))
        else:
            yield name, (integers - offset) * scale


def unpacked_views(
    graph: onnx.GraphProto, arrays: Mapping[str, TensorProto]
) -> dict[str, tuple[str, tuple[int, ...] | None, bool]]:
    """Values that are a stored weight which the runtime unpacks to float before it is used.

    Returns:
        by name: the stored tensor, the shape that it was brought into, and whether it was transposed after that.
    """
    views: dict[str, tuple[str, tuple[int, ...] | None, bool]] = {}
    for node in graph.node:
        given = node.input[0] if node.input else ""
        if node.op_type in ("DequantizeLinear", "Cast") and given in arrays:
            views[node.output[0]] = (given, None, False)
        elif given in views and node.op_type in ("Reshape", "Div", "Transpose"):
            name, shape, turned = views[given]
            if node.op_type == "Reshape" and node.input[1] in arrays:
                shape = tuple(int(size) for size in numpy_helper.to_array(arrays[node.input[1]]))
            views[node.output[0]] = (name, shape, turned != (node.op_type == "Transpose"))
    return views


def _unpacked(packed: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.uint8]:
    """Integers along the last axis, the first in the lowest bits."""
    single = np.unpackbits(packed, axis=-1, bitorder="little")
    single = single[..., : count * bits].reshape(*packed.shape[:-1], count, bits)
    integers: NDArray[np.uint8] = np.packbits(single, axis=-1, bitorder="little")[..., 0]
    return integers


def _attribute(node: onnx.NodeProto, name: str) -> int:
    return next(int(a.i) for a in node.attribute if a.name == name)
