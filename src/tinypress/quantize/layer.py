"""The weights of one layer as packed integers, and back.

Axes: C the channels that each have a scale of their own, K the weights of one channel, G the groups of one
channel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
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
_MakeScale = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
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
    weight = _weight_of(call, layer)
    axis = channel_axis(layer) if per_channel and weight.ndim else None
    make = partial(scale_and_zero_point, bits=bits, scheme=scheme, power_of_two=power_of_two)
    if axis is None:
        integers, scale, zero_point = _one_scale(call, weight.reshape(-1), bits, scheme, make)
    else:
        turned = weight.transpose(0, axis)
        rows = turned.reshape(len(turned), -1) if weight.numel() else weight.new_empty(len(turned), 0)
        integers, scale, zero_point = _scale_per_row(call, rows, bits, scheme, make, group_size)
        integers = integers.view(turned.shape).transpose(0, axis)
    packed = pack(integers, bits)
    return QuantizedWeight(packed, tuple(weight.shape), bits, scheme, axis, scale, zero_point, group_size)


def dequantize_layer_weights(quantized: QuantizedWeight) -> Tensor:
    """The weights that the integers stand for, (q - zero_point) * scale, in float32 and the original shape.

    Where the plan divides the layer's input by ``input_scale``, the weights are divided by it instead.

    Raises:
        InputError: the packed bytes are not those of this shape and number of bits.
    """
    call = f"dequantize_layer_weights(shape={quantized.shape}, axis={quantized.axis})"
    count = math.prod(quantized.shape)
    integers = unpack(quantized.packed, quantized.bits, count, signed=quantized.scheme == "symmetric")
    if not quantized.scale.numel() == quantized.zero_point.numel() == quantized.scales:
        raise InputError(
            call,
            f"{quantized.scale.numel()} scales and {quantized.zero_point.numel()} zero points "
            f"for {quantized.scales} {'channels' if quantized.group_size is None else 'groups'}",
            f"Give one of each per {'channel' if quantized.group_size is None else 'group'}",
        )
    axis = quantized.axis or 0
    turned = integers.view(quantized.shape).transpose(0, axis) if quantized.shape else integers
    channels, width = quantized.rows
    real = to_real_rows(
        turned.reshape(channels, width), quantized.scale, quantized.zero_point, quantized.group_size
    )
    real = real.view(turned.shape).transpose(0, axis).contiguous() if quantized.shape else real.view(())
    if quantized.input_scale is None:
        return real
    return real.div_(along_inputs(quantized.input_scale, quantized.shape))


def to_real_rows(q_CK: Tensor, scale: Tensor, zero_point: Tensor, group_size: int | None) -> Tensor:
    """(q - zero_point) * scale of rows, [C, K] float32; one scale in all, per row or per group."""
    channels, width = q_CK.shape
    if not q_CK.numel():
        return torch.empty(channels, width)
    if group_size is None:
        return to_real(q_CK, scale.view(-1, 1), zero_point.view(-1, 1))
    full = width // group_size * group_size
    real = empty(q_CK.numel(), torch.float32).view(channels, width)
    s_CG, z_CG = scale.view(channels, -1), zero_point.view(channels, -1)
    for part in _parts(channels, _rows(max(1, width))):
        whole, s, z = real[part, :full], s_CG[part], z_CG[part]
        grouped = q_CK[part, :full].reshape(len(s), -1, group_size)
        count = full // group_size
        whole.copy_(to_real(grouped, s[:, :count, None], z[:, :count, None]).view(whole.shape))
        if full < width:
            real[part, full:] = to_real(q_CK[part, full:], s[:, count:], z[:, count:])
    return real


def along_inputs(input_scale: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``input_scale`` as it broadcasts against a weight of ``shape``."""
    return input_scale.view(-1, *[1] * (len(shape) - 2))


def channel_axis(layer: nn.Module) -> int:
    """The dimension of the layer's weight that is its output channel."""
    return 1 if isinstance(layer, _CHANNELS_SECOND) else 0


def check_settings(call: str, bits: int, scheme: str, group_size: int | None) -> None:
    """Refuse settings outside of what this arithmetic knows.

    Raises:
        InputError: ``bits`` is not in 2..8, ``scheme`` unknown or ``group_size`` not a positive whole number.
    """
    if isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 8:
        raise InputError(call, f"bits is {bits!r}", "Give a whole number from 2 to 8")
    if scheme not in get_args(Scheme):
        raise InputError(call, f"scheme is {scheme!r}", "Give 'symmetric' or 'affine'")
    if group_size is None:
        return
    if isinstance(group_size, bool) or not isinstance(group_size, int) or not 1 <= group_size < 2**31:
        raise InputError(call, f"group_size is {group_size!r}", "Give a whole number such as 32, or None")


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


def _one_scale(
    call: str, flat: Tensor, bits: int, scheme: Scheme, make: _MakeScale
) -> tuple[Tensor, Tensor, Tensor]:
    ends = [(piece.amin(), piece.amax()) for piece in torch.split(flat, _BLOCK) if piece.numel()]
    low = torch.stack([low for low, _ in ends]).float().amin().view(1) if ends else torch.zeros(1)
    high = torch.stack([high for _, high in ends]).float().amax().view(1) if ends else torch.zeros(1)
    _check_range(call, low, high)
    scale, zero_point = make(low, high)
    integers = empty(flat.numel(), integer_dtype(scheme))
    scratch = torch.empty(min(_BLOCK, flat.numel()))
    for piece, out in zip(torch.split(flat, _BLOCK), torch.split(integers, _BLOCK), strict=True):
        room = scratch[: len(piece)]
        to_integers(piece.float(), scale, zero_point, bits, scheme, out=out, scratch=room)
    return integers, scale, zero_point


def _scale_per_row(
    call: str, w_CK: Tensor, bits: int, scheme: Scheme, make: _MakeScale, group_size: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    channels, width = w_CK.shape
    group = width if group_size is None else min(group_size, max(1, width))
    groups = 1 if group_size is None else -(-width // group)
    q_CK = empty(w_CK.numel(), integer_dtype(scheme)).view(channels, width)
    scale, zero_point = torch.ones(channels * groups), torch.zeros(channels * groups, dtype=torch.int32)
    if not w_CK.numel():
        return q_CK, scale, zero_point
    missing = groups * group - width
    if missing:
        flat, out, step = w_CK, q_CK, _rows(width)
    else:  # groups lie end to end, whatever row they are of
        flat, out, step = w_CK.reshape(-1, group), q_CK.view(-1, group), _rows(group)
    scratch = torch.empty(min(len(flat), step) * (width + missing if missing else group))
    each = len(scale) // len(flat)  # scales of one row of ``flat``
    for part in _parts(len(flat), step):
        block = flat[part].float()
        if missing:  # a short group is filled up with zeros, which are in every range
            block = torch.nn.functional.pad(block, (0, missing)).view(-1, group)
        low, high = block.amin(1), block.amax(1)  # twice as fast as aminmax
        _check_range(call, low, high)
        s, z = make(low, high)
        places = slice(part.start * each, part.stop * each)
        scale[places], zero_point[places] = s, z
        room = scratch[: block.numel()].view(block.shape)
        if missing:
            q = to_integers(block, s[:, None], z[:, None], bits, scheme, scratch=room)
            out[part] = q.view(-1, groups * group)[:, :width]
        else:
            to_integers(block, s[:, None], z[:, None], bits, scheme, out=out[part], scratch=room)
    return q_CK, scale, zero_point


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
