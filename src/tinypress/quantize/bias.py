"""A bias as 32-bit integers in the scale of the sums it joins (Jacob et al. 2018, arXiv:1712.05877, §2.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from tinypress.bits import pack, unpack
from tinypress.errors import ModelError
from tinypress.facts import QuantizedValue, QuantizedWeight
from tinypress.quantize.affine import next_power_of_two
from tinypress.quantize.fused import fused_nodes

_MOST = 2**31 - 1
_ROOM = 2**30  # of the 32 bits for the bias; the other half is for products, 33,000 of the largest


def bias_integers(
    bias: NDArray[np.floating], x: QuantizedValue, weight: QuantizedWeight
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """round(bias / scale) with scale = input scale * weight scale: the integers [O] and the scale, [] or [O].

    Raises:
        ModelError: one is beyond 32 bits.
    """
    own = weight.scale.numpy().astype(np.float32)
    scale = np.asarray(np.float32(x.scale) * (own.reshape(()) if weight.axis is None else own), np.float32)
    with np.errstate(divide="ignore"):
        rounded = np.rint(bias.astype(np.float64) / scale)
    if not bool((np.abs(rounded) <= _MOST).all()):
        worst = int(np.abs(rounded).argmax())
        raise ModelError(
            f"bias_integers([{len(bias)}])",
            f"the bias {bias[worst]:.3g} of channel {worst} is beyond 32 bits in its scale "
            f"{np.broadcast_to(scale, bias.shape)[worst]:.3g}: the channel's weights are too small beside it",
            "Set those weights to zero, keep the layer in float, or quantize it anew with quantize_model",
        )
    return rounded.astype(np.int32), scale


def with_room(
    graph: onnx.GraphProto,
    weights: Mapping[str, QuantizedWeight],
    values: Mapping[str, QuantizedValue],
    *,
    power_of_two: bool = False,
) -> dict[str, QuantizedWeight]:
    """Those of ``weights`` with channels so small beside their bias that it would overflow, on a coarser scale.

    What such a channel's weights add is lost in the last bits of the bias: on a scale at which the bias takes 30 bits
    nothing is lost that a float would have kept.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    least: dict[str, NDArray[np.float64]] = {}
    for kernel in fused_nodes(graph, weights):
        if kernel.kind != "product" or kernel.weight is None or kernel.bias not in constants:
            continue
        x = values.get(kernel.inputs[0])
        bias = np.abs(numpy_helper.to_array(constants[kernel.bias]).astype(np.float64))
        if x is None or bias.ndim != 1:
            continue
        due = bias / (x.scale * _ROOM)
        if weights[kernel.weight].axis is None:
            due = due.max(keepdims=True)
        known = least.get(kernel.weight)
        least[kernel.weight] = due if known is None else np.maximum(known, due)
    return {
        name: _coarser(weights[name], due, power_of_two)
        for name, due in least.items()
        if due.shape == tuple(weights[name].scale.shape) and bool((weights[name].scale.numpy() < due).any())
    }


def _coarser(weight: QuantizedWeight, least: NDArray[np.float64], power_of_two: bool) -> QuantizedWeight:
    """``weight``, of 8 symmetric bits, with no scale below ``least``."""
    raised = torch.from_numpy(np.nextafter(least.astype(np.float32), np.float32(np.inf)))
    if power_of_two:
        raised = next_power_of_two(raised)
    scale = torch.maximum(weight.scale, raised)
    integers = unpack(weight.packed, 8, int(np.prod(weight.shape)), signed=True).reshape(weight.shape)
    along = (-1, *[1] * (len(weight.shape) - 1))
    moved = torch.round(integers.double() * (weight.scale.double() / scale.double()).reshape(along))
    return replace(weight, packed=pack(moved.to(torch.int8), 8), scale=scale)
