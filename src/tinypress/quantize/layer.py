"""The weights of one layer as packed integers, and back.

Axes: C the channels that each have a scale of their own, K the weights of one channel.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from tinypress.bits import pack, unpack
from tinypress.buffers import empty
from tinypress.errors import InputError, ModelError
from tinypress.facts import QuantizedWeight
from tinypress.quantize.affine import Scheme, integer_dtype, scale_and_zero_point, to_integers, to_real

_BLOCK = 1 << 19  # weights a step, so that its several operations find them in the cache
_LARGEST = 1e38  # beyond it the integers next to the range's ends would stand for infinity
_CHANNELS_SECOND = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def quantize_layer_weights(
    layer: nn.Module,
    bits: int = 8,
    *,
    scheme: Literal["symmetric", "affine"] = "symmetric",
    per_channel: bool = True,
) -> QuantizedWeight:
    """Turn ``layer.weight`` into packed integers; the layer is not changed.

    q = clamp(round(w / scale) + zero_point), halves to even (``affine.py`` has the equations). The output
    channel, which gets a scale of its own unless ``per_channel`` is off, is axis 0 of the weight, and
    axis 1 for transposed convolutions. A weight that is zero comes back as exactly zero.

    Args:
        layer: any module with a floating-point ``weight``; it is read as float32.
        bits: 2 to 8.
        scheme: ``symmetric`` has no zero point, ``affine`` fits the range of the weights.

    Raises:
        InputError: ``bits`` or ``scheme`` is another.
        ModelError: there is no floating-point weight, or it holds NaN, infinity or more than 1e38.
    """
    call = (
        f"quantize_layer_weights({type(layer).__name__}, bits={bits!r}, scheme={scheme!r}, "
        f"per_channel={per_channel!r})"
    )
    if isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 8:
        raise InputError(call, f"bits is {bits!r}", "Give a whole number from 2 to 8")
    if scheme not in get_args(Scheme):
        raise InputError(call, f"scheme is {scheme!r}", "Give 'symmetric' or 'affine'")
    weight = _weight_of(call, layer)
    axis = (1 if isinstance(layer, _CHANNELS_SECOND) else 0) if per_channel and weight.ndim else None
    if axis is None:
        integers, scale, zero_point = _one_scale(call, weight.reshape(-1), bits, scheme)
    elif axis == 0:
        rows = weight.reshape(len(weight), -1) if weight.numel() else weight.new_empty(len(weight), 0)
        integers, scale, zero_point = _scale_per_row(call, rows, bits, scheme)
    else:
        turned = weight.transpose(0, 1)
        integers, scale, zero_point = _scale_per_row(call, turned.reshape(len(turned), -1), bits, scheme)
        integers = integers.view(turned.shape).transpose(0, 1)
    return QuantizedWeight(pack(integers, bits), tuple(weight.shape), bits, scheme, axis, scale, zero_point)


def dequantize_layer_weights(quantized: QuantizedWeight) -> Tensor:
    """The weights that the integers stand for, (q - zero_point) * scale, in float32 and the original shape.

    Raises:
        InputError: the packed bytes are not those of this shape and number of bits.
    """
    count = 1
    for size in quantized.shape:
        count *= size
    integers = unpack(quantized.packed, quantized.bits, count, signed=quantized.scheme == "symmetric")
    broadcast = [1] * len(quantized.shape)
    if quantized.axis is not None:
        broadcast[quantized.axis] = quantized.shape[quantized.axis]
    channels = 1 if quantized.axis is None else quantized.shape[quantized.axis]
    if not quantized.scale.numel() == quantized.zero_point.numel() == channels:
        raise InputError(
            f"dequantize_layer_weights(shape={quantized.shape}, axis={quantized.axis})",
            f"{quantized.scale.numel()} scales and {quantized.zero_point.numel()} zero points "
            f"for {channels} channels",
            "Give one of each per channel",
        )
    return to_real(
        integers.view(quantized.shape), quantized.scale.view(broadcast), quantized.zero_point.view(broadcast)
    )


def _weight_of(call: str, layer: nn.Module) -> Tensor:
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


def _one_scale(call: str, flat: Tensor, bits: int, scheme: Scheme) -> tuple[Tensor, Tensor, Tensor]:
    ends = [(piece.amin(), piece.amax()) for piece in torch.split(flat, _BLOCK) if piece.numel()]
    low = torch.stack([low for low, _ in ends]).float().amin().view(1) if ends else torch.zeros(1)
    high = torch.stack([high for _, high in ends]).float().amax().view(1) if ends else torch.zeros(1)
    _check_range(call, low, high)
    scale, zero_point = scale_and_zero_point(low, high, bits, scheme)
    integers = empty(flat.numel(), integer_dtype(scheme))
    scratch = torch.empty(min(_BLOCK, flat.numel()))
    for piece, out in zip(torch.split(flat, _BLOCK), torch.split(integers, _BLOCK), strict=True):
        room = scratch[: len(piece)]
        to_integers(piece.float(), scale, zero_point, bits, scheme, out=out, scratch=room)
    return integers, scale, zero_point


def _scale_per_row(call: str, w_CK: Tensor, bits: int, scheme: Scheme) -> tuple[Tensor, Tensor, Tensor]:
    channels, count = w_CK.shape
    q_CK = empty(w_CK.numel(), integer_dtype(scheme)).view(channels, count)
    scale_C, zero_point_C = torch.ones(channels), torch.zeros(channels, dtype=torch.int32)
    if not w_CK.numel():
        return q_CK, scale_C, zero_point_C
    scratch = torch.empty(min(channels, _rows(count)), count)
    for part in _parts(channels, _rows(count)):
        block = w_CK[part].float()
        low, high = block.amin(1), block.amax(1)  # twice as fast as aminmax
        _check_range(call, low, high)
        scale, zero_point = scale_and_zero_point(low, high, bits, scheme)
        scale_C[part], zero_point_C[part] = scale, zero_point
        to_integers(
            block,
            scale[:, None],
            zero_point[:, None],
            bits,
            scheme,
            out=q_CK[part],
            scratch=scratch[: len(block)],
        )
    return q_CK, scale_C, zero_point_C


def _rows(count: int) -> int:
    return max(1, _BLOCK // count)


def _parts(length: int, step: int) -> Iterator[slice]:
    return (slice(start, start + step) for start in range(0, length, step))


def _check_range(call: str, low: Tensor, high: Tensor) -> None:
    # written so that NaN, which compares false with everything, fails it too
    if not (bool((low >= -_LARGEST).all()) and bool((high <= _LARGEST).all())):
        raise ModelError(
            call,
            "the parameter 'weight' holds NaN, infinity or a magnitude over 1e38",
            "Look for the step of the training that diverged",
        )
