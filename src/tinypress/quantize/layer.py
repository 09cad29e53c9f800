"""The weights of one layer as packed integers, and back.

Axes: C the channels that each have a scale of their own, K the weights of one channel, G the groups of one
channel.
"""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from tinypress.bits import pack, unpack
from tinypress.errors import InputError, ModelError
from tinypress.facts import QuantizedWeight
from tinypress.quantize.halves import real_halves
from tinypress.quantize.rows import (
    Fit,
    Grid,
    check_settings,
    quantize_flat,
    quantize_rows,
    real_rows,
    whole_range,
)

_CHANNELS_SECOND = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def quantize_layer_weights(
    layer: nn.Module,
    bits: int = 8,
    *,
    scheme: Literal["symmetric", "affine"] = "symmetric",
    per_channel: bool = True,
    group_size: int | None = None,
    power_of_two: bool = False,
) -> QuantizedWeight:
    """Turn ``layer.weight`` into packed integers; the layer is not changed.

    q = clamp(round(w / scale) + zero_point), halves to even (``affine.py`` has the equations). The output
    channel, which gets a scale of its own unless ``per_channel`` is off, is axis 0 of the weight, and
    axis 1 for transposed convolutions. A weight that is zero comes back as exactly zero.

    Args:
        layer: any module with a floating-point ``weight``; it is read as float32.
        bits: 2 to 8.
        scheme: ``symmetric`` has no zero point, ``affine`` fits the range of the weights.
        group_size: so many neighbouring weights of one channel share a scale (Dettmers et al. 2022,
            arXiv:2110.02861, call it block-wise); the last group of a channel may be short.
        power_of_two: scales are powers of two, rounded up.

    Raises:
        InputError: ``bits``, ``scheme`` or ``group_size`` is another, or there are groups without channels.
        ModelError: there is no floating-point weight, or it holds NaN, infinity or more than 1e38.
    """
    call = (
        f"quantize_layer_weights({type(layer).__name__}, bits={bits!r}, scheme={scheme!r}, "
        f"per_channel={per_channel!r})"
    )
    check_settings(call, bits, scheme, group_size)
    if group_size is not None and not per_channel:
        raise InputError(call, "groups are parts of a channel", "Leave per_channel on")
    grid = Grid(bits, scheme, group_size, power_of_two)
    return quantize_weight(call, weight_of(call, layer), channel_axis(layer) if per_channel else None, grid)


def quantize_weight(
    call: str, weight: Tensor, axis: int | None, grid: Grid, fit: Fit = whole_range
) -> QuantizedWeight:
    """The integers of one tensor, with the scales that ``fit`` chooses for each index of ``axis`` or group of it."""
    if axis is None or not weight.ndim:
        integers, scale, zero_point = quantize_flat(call, weight.reshape(-1), grid)
        return packed_weight(integers, scale, zero_point, tuple(weight.shape), None, grid)
    q_CK, scale, zero_point = quantize_rows(call, as_rows(weight, axis), grid, fit)
    return packed_weight(q_CK, scale, zero_point, tuple(weight.shape), axis, grid)


def packed_weight(
    integers: Tensor, scale: Tensor, zero_point: Tensor, shape: tuple[int, ...], axis: int | None, grid: Grid
) -> QuantizedWeight:
    """Integers that lie in rows of ``axis``, packed in the order of a weight of ``shape``."""
    if axis:
        integers = integers.view(_turned(shape, axis)).movedim(0, axis)
    packed = pack(integers, grid.bits)
    return QuantizedWeight(packed, shape, grid.bits, grid.scheme, axis, scale, zero_point, grid.group_size)


def as_rows(weight: Tensor, axis: int) -> Tensor:
    """[C, K]: all weights of each index of ``axis``, in row-major order."""
    turned = weight.movedim(axis, 0)
    return turned.reshape(len(turned), -1) if weight.numel() else weight.new_empty(len(turned), 0)


def dequantize_layer_weights(quantized: QuantizedWeight) -> Tensor:
    """The weights that the integers stand for, (q - zero_point) * scale, in float32 and the original shape.

    Where the plan divides the layer's input by ``input_scale``, the weights are divided by it instead.

    Raises:
        InputError: the packed bytes are not those of this shape and number of bits.
    """
    call = f"dequantize_layer_weights(shape={quantized.shape}, axis={quantized.axis})"
    if quantized.is_half:
        return real_halves(call, quantized)
    count = math.prod(quantized.shape)
    integers = unpack(quantized.packed, quantized.bits, count, signed=quantized.scheme == "symmetric")
    if not quantized.scale.numel() == quantized.zero_point.numel() == quantized.scales:
        raise InputError(
            call,
            f"{quantized.scale.numel()} scales and {quantized.zero_point.numel()} zero points "
            f"for {quantized.scales} {'channels' if quantized.group_size is None else 'groups'}",
            f"Give one of each per {'channel' if quantized.group_size is None else 'group'}",
        )
    channels, width = quantized.rows
    q_CK = (
        integers.view(1, -1)
        if quantized.axis is None
        else as_rows(integers.view(quantized.shape), quantized.axis)
    )
    real = real_rows(q_CK.view(channels, width), quantized.scale, quantized.zero_point, quantized.group_size)
    if quantized.axis:
        real = real.view(_turned(quantized.shape, quantized.axis)).movedim(0, quantized.axis).contiguous()
    real = real.view(quantized.shape)
    if quantized.input_scale is None:
        return real
    return real.div_(along_inputs(quantized.input_scale, quantized.shape))


def along_inputs(input_scale: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``input_scale`` as it broadcasts against a weight of ``shape``."""
    return input_scale.view(-1, *[1] * (len(shape) - 2))


def channel_axis(layer: nn.Module) -> int:
    """The dimension of the layer's weight that is its output channel."""
    return 1 if isinstance(layer, _CHANNELS_SECOND) else 0


def _turned(shape: tuple[int, ...], axis: int) -> list[int]:
    return [shape[axis], *(size for place, size in enumerate(shape) if place != axis)]


def weight_of(call: str, layer: nn.Module) -> Tensor:
    """The layer's weight on the CPU.

    Raises:
        ModelError: there is no floating-point weight, or it is not loaded.
    """
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor) or is_lazy(weight) or not weight.is_floating_point():
        raise ModelError(
            call,
            "the layer has no floating-point tensor called weight",
            "Give a layer such as Linear or Conv2d, after its first forward pass if it is lazy",
        )
    if weight.is_meta:
        raise ModelError(call, "the weight is on the meta device", "Load the weights first")
    return weight.detach().cpu()
