"""Reads the facts of an ONNX artifact off the file: layers, parameters, MACs, bytes, what is computed in integers.

Axes of ``weight_shape``: [out, in, ...], as PyTorch has them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from tinypress.measure.islands import Island, float_islands
from tinypress.measure.packed import AT_RUN_TIME, PACKED, packed_weights, unpacked_views
from tinypress.measure.weights import histogram
from tinypress.receipt import Layer
from tinypress.runtimes.fused import read_by_integer_kernels, reads_weight
from tinypress.runtimes.onnx import open_onnx, optimized_graph, read_model

_INTEGERS = frozenset({TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT4})
_SHAPES = frozenset({TensorProto.INT64, TensorProto.BOOL})
_QDQ = frozenset({"QuantizeLinear", "DequantizeLinear"})
_IN_INTEGERS = AT_RUN_TIME | {"QuantizeLinear"}


@dataclass(frozen=True)
class ArtifactFacts:
    """What an artifact holds and computes. ``macs`` are of one sample; ``activation_bytes`` are those that its
    layers read; ``float_layers`` names the layers that are computed in float, ``unpacked_layers`` those among
    them whose few bits the runtime turns into floats first; ``islands`` run in float where the file has integers."""

    layers: tuple[Layer, ...]
    parameters: int
    nonzero_parameters: int
    macs_int8: int
    macs_float: int
    weight_bytes: int
    activation_bytes: int
    float_layers: tuple[str, ...]
    unpacked_layers: tuple[str, ...] = ()
    islands: tuple[Island, ...] = ()

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations of one sample."""
        return self.macs_int8 + self.macs_float


@dataclass(frozen=True)
class _Tensor:
    """A stored tensor as real numbers, with its bits an element and whether it is stored as integers."""

    name: str
    real: NDArray[np.floating]
    bits: int

    @property
    def stored_bytes(self) -> int:
        return math.ceil(self.real.size * self.bits / 8)


def read_onnx(path: Path, example: tuple[NDArray[np.generic], ...]) -> ArtifactFacts:
    """Facts of the ONNX file at ``path``; ``example`` is one sample per input, [1, ...], for the shapes.

    Scales, zero points and shape constants are not parameters; everything else that is stored is.

    Raises:
        ArtifactError: the file is truncated or cannot be run on the example.
    """
    proto = read_model(path)
    quantized = any(node.op_type in _IN_INTEGERS for node in proto.graph.node)
    optimized = optimized_graph(path) if quantized else onnx.GraphProto()
    in_integers = read_by_integer_kernels(optimized)
    tensors = _stored(proto.graph)
    shapes = _shapes(proto, example)
    source = _sources(proto.graph, tensors)
    layers: list[Layer] = []
    float_layers: list[str] = []
    unpacked: list[str] = []
    macs_int8 = macs_float = activation_bytes = 0
    owned: set[str] = set()
    for node in proto.graph.node:
        macs = _macs(node, shapes, source)
        weight = next((source[name] for name in node.input[1:2] if name in source), None)
        if macs is None:
            continue
        integer = weight is not None and weight.bits == 8 and reads_weight(in_integers, weight.name)
        macs_int8 += macs if integer else 0
        macs_float += 0 if integer else macs
        activation_bytes += math.prod(shapes[node.input[0]]) * (1 if integer else 4)
        if weight is None:
            continue
        parts = [weight] + [source[name] for name in node.input[2:] if name in source]
        fresh = [part for part in parts if part.name not in owned]
        owned |= {part.name for part in parts}
        layers.append(_layer(node, weight, fresh, macs))
        if not integer and node.op_type not in PACKED:
            float_layers.append(layers[-1].name)
            if weight.bits < 8:
                unpacked.append(layers[-1].name)
    others = [tensor for tensor in tensors.values() if tensor.name not in owned]
    layers += [
        _layer(None, tensor, [tensor], None)
        for tensor in others
        if tensor.real.ndim > 1 and tensor.real.size > 1
    ]
    return ArtifactFacts(
        tuple(layers),
        sum(tensor.real.size for tensor in tensors.values()),
        sum(int(np.count_nonzero(tensor.real)) for tensor in tensors.values()),
        macs_int8,
        macs_float,
        sum(tensor.stored_bytes for tensor in tensors.values()),
        activation_bytes,
        tuple(float_layers),
        tuple(unpacked),
        float_islands(proto.graph, optimized),
    )


def _layer(node: onnx.NodeProto | None, weight: _Tensor, parts: list[_Tensor], macs: int | None) -> Layer:
    real = weight.real.T if node is not None and node.op_type in _TURNED else weight.real
    if node is not None and node.op_type == "Gemm" and not _attribute(node, "transB", 0):
        real = real.T
    return Layer(
        name=weight.name.removesuffix(":packed").removesuffix(".weight"),
        kind="constant" if node is None else node.op_type,
        weight_shape=tuple(real.shape),
        parameters=sum(part.real.size for part in parts),
        nonzero_parameters=sum(int(np.count_nonzero(part.real)) for part in parts),
        bits=weight.bits,
        bytes=sum(part.stored_bytes for part in parts),
        macs=macs,
        histogram=histogram(torch.from_numpy(np.ascontiguousarray(weight.real, np.float32))),
    )


_TURNED = ("MatMul", "MatMulInteger")  # their weights stand as [in, out]


def _stored(graph: onnx.GraphProto) -> dict[str, _Tensor]:
    """Stored tensors that are parameters, as real numbers: integers times their scale."""
    arrays = {tensor.name: tensor for tensor in graph.initializer}
    scales: dict[str, tuple[str, str | None, int, int]] = {}
    packed, besides = packed_weights(graph)
    constants: set[str] = set(besides)
    for node in graph.node:
        if node.op_type in _QDQ:
            constants |= set(node.input[1:])
            if node.input[0] in arrays:
                zero = node.input[2] if len(node.input) > 2 else None
                scales[node.input[0]] = (
                    node.input[1],
                    zero,
                    _attribute(node, "axis", 1),
                    _attribute(node, "block_size", 0),
                )
    tensors = {}
    for name, tensor in arrays.items():
        if name in constants or tensor.data_type in _SHAPES:
            continue
        if name in packed:
            tensors[name] = _Tensor(name, *packed[name])
            continue
        array = numpy_helper.to_array(tensor)
        bits = 4 if tensor.data_type in (TensorProto.INT4, TensorProto.UINT4) else 8 * array.dtype.itemsize
        real = array.astype(np.float32)
        if name in scales:
            real = _real(array.astype(np.float32), *scales[name], arrays)
        tensors[name] = _Tensor(name, real, bits)
    return tensors


def _real(
    integers: NDArray[np.float32],
    scale: str,
    zero: str | None,
    axis: int,
    block: int,
    arrays: Mapping[str, TensorProto],
) -> NDArray[np.float32]:
    factor = numpy_helper.to_array(arrays[scale]).astype(np.float32)
    offset = numpy_helper.to_array(arrays[zero]).astype(np.float32) if zero else np.float32(0)
    if factor.ndim:
        if factor.ndim > 1:  # one scale a block of the last axis
            width = integers.shape[-1]
            factor = np.repeat(factor, block, axis=-1)[..., :width]
            offset = np.repeat(offset, block, axis=-1)[..., :width] if np.ndim(offset) else offset
            blocked: NDArray[np.float32] = (integers - offset) * factor
            return blocked
        along = [1] * integers.ndim
        along[axis if integers.ndim > 1 else 0] = -1
        factor, offset = factor.reshape(along), np.reshape(offset, along if np.ndim(offset) else ())
    real: NDArray[np.float32] = (integers - offset) * factor
    return real


def _sources(graph: onnx.GraphProto, tensors: Mapping[str, _Tensor]) -> dict[str, _Tensor]:
    """Names under which nodes read a stored tensor: its own, or that of its dequantized value."""
    source = dict(tensors)
    for read, (name, shape, turned) in unpacked_views(graph, {t.name: t for t in graph.initializer}).items():
        if name in tensors:
            real = tensors[name].real if shape is None else tensors[name].real.reshape(shape)
            source[read] = replace(tensors[name], real=real.T if turned else real)
    return source


def _shapes(proto: onnx.ModelProto, example: tuple[NDArray[np.generic], ...]) -> dict[str, tuple[int, ...]]:
    """The shape of every value that a product reads or writes, from a real run of one sample."""
    watched = onnx.ModelProto()
    watched.CopyFrom(proto)
    declared = {value.name for value in (*proto.graph.input, *proto.graph.output)}
    constant = {tensor.name for tensor in proto.graph.initializer}
    wanted = {
        name
        for node in proto.graph.node
        if node.op_type in _PRODUCTS
        for name in (*node.input[:2], *node.output[:1])
        if name not in constant
    }
    for name in sorted(wanted - declared):
        watched.graph.output.append(onnx.ValueInfoProto(name=name))
    runner = open_onnx(watched.SerializeToString(), outputs=None)
    fed = dict(zip(runner.input_names, example, strict=True))
    names = [value.name for value in watched.graph.output]
    shapes = {name: tuple(array.shape) for name, array in fed.items()}
    for name, array in zip(names, runner.session.run(names, fed), strict=True):
        shapes[name] = tuple(array.shape)
    return shapes


_PRODUCTS = ("Conv", "ConvInteger", "ConvTranspose", "Gemm", "MatMul", "MatMulInteger", "MatMulNBits")


def _macs(
    node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]], source: Mapping[str, _Tensor]
) -> int | None:
    """MACs of a product for one sample; None for every other operator."""
    if node.op_type not in _PRODUCTS:
        return None
    weight = source[node.input[1]].real.shape if node.input[1] in source else shapes[node.input[1]]
    if node.op_type == "ConvTranspose":
        return math.prod(shapes[node.input[0]]) * math.prod(weight[1:])
    out = math.prod(shapes[node.output[0]])
    if node.op_type in ("Conv", "ConvInteger"):
        return out * math.prod(weight[1:])
    return out * shapes[node.input[0]][-1]


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)
