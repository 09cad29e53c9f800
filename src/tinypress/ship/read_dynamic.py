"""Reads the layers that round their input at run time back out of a file that ``dynamic.py`` wrote.

Each product in integers, with the nodes around it, becomes the float product that it stands for, and its weight one of
the plan; so does an LSTM.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tinypress.bits import pack
from tinypress.facts import QuantizedWeight
from tinypress.parameter_names import GATES
from tinypress.quantize.recurrent import NODES

_PRODUCTS = {"MatMulInteger": "MatMul", "ConvInteger": "Conv"}


@dataclass(frozen=True)
class AtRunTime:
    """The graph's nodes with float products, their weights as real numbers, and as integers."""

    nodes: list[onnx.NodeProto]
    floats: dict[str, TensorProto] = field(default_factory=dict)
    weights: dict[str, QuantizedWeight] = field(default_factory=dict)


def read_dynamic(graph: onnx.GraphProto) -> AtRunTime:
    """The float nodes of ``graph``; those of a file without such layers are its own."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    maker = {name: node for node in graph.node for name in node.output if name}
    found, products, gone = AtRunTime([]), dict[str, onnx.NodeProto](), set[str]()
    for node in graph.node:
        parts = _parts(node, maker, stored)
        if parts is not None:
            products[node.output[0]] = _product(parts, stored, found)
            gone |= {part.output[0] for part in parts[1:]}
    for node in graph.node:
        if node.op_type == "DynamicQuantizeLSTM":
            found.nodes.append(_lstm(node, stored, found))
        elif node.output[0] not in gone:
            found.nodes.append(products.get(node.output[0], node))
    return found


_Parts = tuple[onnx.NodeProto, onnx.NodeProto, onnx.NodeProto, onnx.NodeProto, onnx.NodeProto]


def _parts(
    scaled: onnx.NodeProto, maker: Mapping[str, onnx.NodeProto], stored: Mapping[str, TensorProto]
) -> _Parts | None:
    """Of a product that ends in ``scaled``: that, its factor, the Cast, the product and the rounding of its input.

    ``None`` where it is another node.
    """
    if scaled.op_type != "Mul":
        return None
    cast, factor = (maker.get(name) for name in scaled.input)
    product = maker.get(cast.input[0]) if cast is not None and cast.op_type == "Cast" else None
    if cast is None or factor is None or product is None or product.op_type not in _PRODUCTS:
        return None
    rounded = maker.get(product.input[0])
    if rounded is None or rounded.op_type != "DynamicQuantizeLinear" or product.input[1] not in stored:
        return None
    return scaled, factor, cast, product, rounded


def _product(parts: _Parts, stored: Mapping[str, TensorProto], found: AtRunTime) -> onnx.NodeProto:
    """The float product; its weight goes into ``found``."""
    scaled, factor, _, node, rounded = parts
    name, conv = node.input[1], node.op_type == "ConvInteger"
    integers = numpy_helper.to_array(stored[name]).astype(np.int16) - _zero(stored, node.input[3])
    scale = numpy_helper.to_array(stored[factor.input[1]]).astype(np.float32)
    found.weights[name] = _weight(integers if conv else integers.T, scale)
    along = scale.reshape(-1, *[1] * (integers.ndim - 1)) if conv and scale.ndim else scale
    found.floats[name] = numpy_helper.from_array(np.ascontiguousarray(integers * along, np.float32), name)
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    given = [rounded.input[0], name]
    return helper.make_node(_PRODUCTS[node.op_type], given, list(scaled.output), **attributes)


def _zero(stored: Mapping[str, TensorProto], name: str) -> NDArray[np.int16]:
    zero: NDArray[np.int16] = numpy_helper.to_array(stored[name]).astype(np.int16)
    return zero


def _weight(integers: NDArray[np.int16], scale: NDArray[np.float32]) -> QuantizedWeight:
    rows = np.ascontiguousarray(integers.astype(np.int8))
    scales = torch.tensor(scale.reshape(-1))
    return QuantizedWeight(
        packed=pack(torch.from_numpy(rows), 8),
        shape=tuple(rows.shape),
        bits=8,
        scheme="symmetric",
        axis=0 if scale.ndim else None,
        scale=scales,
        zero_point=torch.zeros(len(scales), dtype=torch.int32),
    )


def _lstm(node: onnx.NodeProto, stored: Mapping[str, TensorProto], found: AtRunTime) -> onnx.NodeProto:
    order = np.argsort(GATES[NODES["LSTM"]])
    for place, first in ((1, 8), (2, 10)):
        name = node.input[place]
        scale_DG = numpy_helper.to_array(stored[node.input[first]])
        zero_DG = _zero(stored, node.input[first + 1])
        integers = numpy_helper.to_array(stored[name]).astype(np.int16) - zero_DG[:, None]
        for way, part in enumerate((name, f"{name}_reverse")[: len(integers)]):
            rows = scale_DG.shape[1]
            places = np.arange(rows).reshape(4, -1)[order].reshape(-1)
            found.weights[part] = _weight(integers[way].T[places], scale_DG[way][places])
        real = (integers * scale_DG[:, None]).swapaxes(1, 2).astype(np.float32)
        found.floats[name] = numpy_helper.from_array(np.ascontiguousarray(real), name)
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return helper.make_node("LSTM", list(node.input[:8]), list(node.output), **attributes)
