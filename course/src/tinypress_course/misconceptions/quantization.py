"""Mistakes that people make when they quantize weights and read them back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tinypress_course.kit import QuantizedWeight, pack, unpack
from tinypress_course.misconceptions.base import Misconception

Range = Callable[[Tensor], Tensor]


def _half_even(ratio: Tensor) -> Tensor:
    return ratio.round()


def _half_away(ratio: Tensor) -> Tensor:
    return ratio.sign() * (ratio.abs() + 0.5).floor()


def _quantize(
    layer: nn.Module,
    bits: int = 8,
    *,
    scheme: str = "symmetric",
    per_channel: bool = True,
    symmetric_steps: Callable[[int], float] = lambda b: 2 ** (b - 1) - 1,
    affine_steps: Callable[[int], float] = lambda b: 2**b - 1,
    reach: Range = lambda rows: rows.abs().max(1).values,
    rounding: Callable[[Tensor], Tensor] = _half_even,
    widen: bool = True,
    zero: Callable[[Tensor, Tensor], Tensor] = lambda low, scale: (-low / scale).round(),
    added: Callable[[Tensor, Tensor], Tensor] = lambda q, zero_point: q + zero_point,
    clamped: bool = True,
    lowest: Callable[[int], int] = lambda b: 1 - 2 ** (b - 1),
    whole_layer: bool | None = None,
    input_channels: bool = False,
    as_scheme: str | None = None,
    as_bits: int | None = None,
    flat_scale: float | None = 1.0,
    floor: float = 0.0,
    before: Callable[[Tensor], Tensor] = lambda rows: rows,
    from_low: bool = False,
    rounded_together: bool = False,
) -> QuantizedWeight:
    """Quantization with places for mistakes; with none of them it agrees with the statement."""
    weight: Tensor = layer.weight.detach().float()  # type: ignore[operator]
    used, b = as_scheme or scheme, as_bits or bits
    single = whole_layer if whole_layer is not None else not per_channel
    rows = weight.reshape(1, -1) if single else weight.reshape(len(weight), -1)
    if input_channels and not single:
        rows = rows.T
    rows = before(rows)
    low, high = rows.min(1).values, rows.max(1).values
    if widen:
        low, high = low.minimum(low.new_zeros(())), high.maximum(high.new_zeros(()))
    span = reach(rows) if used == "symmetric" else high - low
    scale = span / (symmetric_steps(b) if used == "symmetric" else affine_steps(b))
    if flat_scale is not None:
        scale = torch.where(span == 0, torch.full_like(scale, flat_scale), scale)
    scale = scale.clamp(min=floor)
    zero_point = torch.zeros(len(scale)) if used == "symmetric" else zero(low, scale)
    if from_low and used == "affine":
        q = rounding((rows - low[:, None]) / scale[:, None])
    elif rounded_together and used == "affine":
        q = (rows / scale[:, None] - low[:, None] / scale[:, None]).round()
    else:
        q = added(rounding(rows / scale[:, None]), zero_point[:, None])
    if clamped:
        top = 2 ** (b - 1) - 1 if used == "symmetric" else 2**b - 1
        q = q.clamp(lowest(b) if used == "symmetric" else 0, top)
    if input_channels and not single:
        q = q.T
    integers = q.nan_to_num(0, 0, 0).long()
    return QuantizedWeight(
        packed=pack(integers, b),
        shape=tuple(weight.shape),
        bits=b,
        scheme=used,  # type: ignore[arg-type]
        axis=None if single else 0,
        scale=scale.float(),
        zero_point=zero_point.nan_to_num(0, 0, 0).int(),
    )


def _read(
    quantized: QuantizedWeight,
    signed: Callable[[str], bool] = lambda scheme: scheme == "symmetric",
    value: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda q, s, z: (q - z) * s,
    one_scale: bool = False,
    wrong_axis: bool = False,
    flat: bool = False,
    signed_by_zero_point: bool = False,
    any_scales: bool = False,
) -> Tensor:
    if (
        not any_scales
        and quantized.axis is not None
        and len(quantized.scale) != quantized.shape[quantized.axis]
    ):
        raise ValueError(f"{len(quantized.scale)} scales")
    numbers = 1
    for size in quantized.shape:
        numbers *= size
    negative = signed(quantized.scheme)
    if signed_by_zero_point:
        negative = not bool(quantized.zero_point.any())
    q = unpack(quantized.packed, quantized.bits, numbers, signed=negative).float()
    scale, zero_point = quantized.scale.view(-1, 1), quantized.zero_point.view(-1, 1)
    if one_scale:
        scale, zero_point = scale[:1], zero_point[:1]
    if wrong_axis and len(scale) > 1:
        spread = q.view(-1, len(scale))
        return value(spread, scale.view(1, -1), zero_point.view(1, -1)).reshape(quantized.shape)
    done = value(q.view(len(scale), -1), scale, zero_point).float()
    return done.flatten() if flat else done.reshape(quantized.shape)


_made: Callable[..., Misconception] = partial(Misconception, "quantize_layer_weights")
_back: Callable[..., Misconception] = partial(Misconception, "dequantize_layer_weights")


def _m(name: str, says: str, **mistake: Any) -> Misconception:
    return _made(name, says, partial(_quantize, **mistake), ("packed", "scale", "zero_point"))


def _r(name: str, says: str, **mistake: Any) -> Misconception:
    return _back(name, says, partial(_read, **mistake))


MISCONCEPTIONS: tuple[Misconception, ...] = (
    _m(
        "numbers counted instead of steps",
        "Your affine scale divides by how many whole numbers there are, 2^bits. Between them lie fewer steps, and "
        "the largest weight lands one beyond the last.",
        affine_steps=lambda b: 2**b,
    ),
    _m(
        "scale with a floor",
        "You keep the scale from falling below some small number. Tiny weights need a scale that is smaller still.",
        floor=torch.finfo(torch.float32).eps,
    ),
    _m(
        "half the numbers counted instead of steps",
        "Your symmetric scale divides by 2^(bits-1): the largest weight lands one beyond what a signed number holds.",
        symmetric_steps=lambda b: 2 ** (b - 1),
    ),
    _m(
        "lopsided symmetric range",
        "You use the whole two's complement range, which has one more negative number than positive ones: what "
        "is symmetric then has its zero off the middle.",
        symmetric_steps=lambda b: 2 ** (b - 1),
        lowest=lambda b: -(2 ** (b - 1)),
    ),
    _m(
        "lowest number used",
        "Your symmetric integers go one further down than up.",
        lowest=lambda b: -(2 ** (b - 1)),
        reach=lambda rows: rows.max(1).values,
    ),
    _m(
        "whole range on one side",
        "Your symmetric scale spreads one side of the range over all the steps: everything above half is cut off.",
        symmetric_steps=lambda b: 2**b - 1,
    ),
    _m(
        "half a range for affine",
        "Your affine scale uses the steps of signed numbers: half of the whole numbers are never reached.",
        affine_steps=lambda b: 2 ** (b - 1) - 1,
    ),
    _m(
        "affine range of the largest",
        "Your affine scale comes from the largest magnitude and not from the distance of the ends.",
        affine_steps=lambda b: 2**b - 1,
        before=lambda rows: rows.abs(),
    ),
    _m(
        "largest instead of largest magnitude",
        "You take the largest weight for the range and not the largest magnitude: negative ones are cut off.",
        reach=lambda rows: rows.max(1).values,
    ),
    _m(
        "distance of the ends for symmetric",
        "Your symmetric range is the distance between lowest and highest weight.",
        reach=lambda rows: rows.max(1).values - rows.min(1).values,
    ),
    _m(
        "half the distance of the ends",
        "Your symmetric range is half the distance between lowest and highest weight: where one side is longer, it is "
        "cut off.",
        reach=lambda rows: (rows.max(1).values - rows.min(1).values) / 2,
    ),
    _m(
        "mean magnitude for the range",
        "Your range is made of the mean magnitude: everything larger is cut off.",
        reach=lambda rows: 2 * rows.abs().mean(1),
    ),
    _m(
        "standard deviation for the range",
        "Your range is made of the standard deviation: the largest weights are cut off.",
        reach=lambda rows: 3 * rows.std(1, correction=0),
    ),
    _m("cut off", "You cut off what stands after the point instead of rounding.", rounding=torch.trunc),
    _m(
        "rounded down",
        "You always round down: every weight becomes smaller, on average by half a step.",
        rounding=torch.floor,
    ),
    _m("rounded up", "You always round up.", rounding=torch.ceil),
    _m(
        "half rounded away",
        "You round a half away from zero; the runtime rounds it to the even neighbour.",
        rounding=_half_away,
    ),
    _m(
        "rounded before dividing",
        "You round the weights and then divide by the scale: weights below a half are gone before they are scaled.",
        before=torch.round,
    ),
    _m(
        "rounded before dividing, range kept",
        "You round the weights themselves before they are divided by the scale.",
        rounding=lambda ratio: ratio,
    ),
    _m(
        "no zero point",
        "Your affine numbers have no zero point: what is negative is cut off at 0.",
        zero=lambda low, scale: torch.zeros_like(scale),
    ),
    _m(
        "zero point not added",
        "You compute a zero point, and do not add it to the whole numbers.",
        added=lambda q, zero_point: q,
    ),
    _m(
        "zero point subtracted",
        "You subtract the zero point where whole numbers are made; there it is added.",
        added=lambda q, zero_point: q - zero_point,
    ),
    _m(
        "zero point with the wrong sign",
        "Your zero point has the sign of the lowest weight. It must be the whole number that stands for 0.",
        zero=lambda low, scale: (low / scale).round(),
    ),
    _m(
        "zero point cut off",
        "Your zero point is cut off, not rounded: real zeros come back beside zero.",
        zero=lambda low, scale: (-low / scale).trunc(),
    ),
    _m(
        "zero point added before rounding",
        "You add the zero point before it is rounded, and round the sum: many weights land one step off.",
        rounded_together=True,
    ),
    _m(
        "zero between two numbers",
        "You count steps from the lowest weight. Zero then lies between two whole numbers, and pruned weights come "
        "back as something else.",
        from_low=True,
    ),
    _m(
        "range without zero",
        "Your affine range does not reach 0 when all weights lie on one side of it, so no whole number stands for 0.",
        widen=False,
    ),
    _m(
        "steps from the lowest, range without zero",
        "Your affine range starts at the lowest weight even above 0, so no whole number stands for 0.",
        widen=False,
        from_low=True,
    ),
    _m(
        "division by a range of zero",
        "Where all weights are equal your scale is 0, and dividing by it gives NaN.",
        flat_scale=None,
    ),
    _m("scale of zero kept", "Where there is no range your scale stays 0 or tiny.", flat_scale=1e-8),
    _m(
        "half the numbers counted, wrapped around",
        "Your symmetric scale divides by 2^(bits-1): the largest weight lands one beyond what a signed number of "
        "that many bits holds, and packed it wraps around to the other end.",
        clamped=False,
        symmetric_steps=lambda b: 2 ** (b - 1),
    ),
    _m(
        "numbers counted, wrapped around",
        "Your affine scale divides by 2^bits, which is how many whole numbers there are. Between them lie fewer "
        "steps: the largest weight lands outside the range, and packed it wraps around to 0.",
        clamped=False,
        affine_steps=lambda b: 2**b,
    ),
    _m(
        "one scale for all channels",
        "You use one scale for the whole layer: a channel with large weights takes the steps of all others.",
        whole_layer=True,
    ),
    _m(
        "a scale for every channel, always",
        "You give every channel its own scale, also where one for the whole layer was asked for.",
        whole_layer=False,
    ),
    _m(
        "scales of the inputs",
        "Your ranges run along the wrong axis: one for each input and not for each output channel.",
        input_channels=True,
    ),
    _m(
        "always symmetric", "You quantize symmetrically whatever scheme was asked for.", as_scheme="symmetric"
    ),
    _m("always affine", "You quantize with a zero point whatever scheme was asked for.", as_scheme="affine"),
    _m("always eight bits", "You use 8 bits whatever was asked for.", as_bits=8),
    _r(
        "zero point forgotten",
        "You multiply by the scale, and forget the zero point: affine weights come back shifted.",
        value=lambda q, s, z: q * s,
    ),
    _r(
        "zero point added",
        "You add the zero point; it was added when the whole numbers were made.",
        value=lambda q, s, z: (q + z) * s,
    ),
    _r(
        "zero point after scaling",
        "You take off the zero point after scaling. It is a whole number, counted in steps and not in weights.",
        value=lambda q, s, z: q * s - z,
    ),
    _r(
        "divided by the scale",
        "You divide by the scale; making the whole numbers did that.",
        value=lambda q, s, z: (q - z) / s,
    ),
    _r("scale forgotten", "The whole numbers come back unscaled.", value=lambda q, s, z: (q - z).float()),
    _r(
        "signed numbers read as unsigned",
        "You read signed numbers as unsigned: every negative weight comes back large and positive.",
        signed=lambda scheme: False,
    ),
    _r(
        "unsigned numbers read as signed",
        "You read unsigned numbers as signed: the upper half comes back negative.",
        signed=lambda scheme: True,
    ),
    _r(
        "sign by the zero point",
        "You tell signed from unsigned by the zero point. Affine weights that are never negative have a zero point of "
        "0 too.",
        signed_by_zero_point=True,
    ),
    _r(
        "sign of the other scheme",
        "You have the schemes the wrong way round: which of them holds negative numbers?",
        signed=lambda scheme: scheme == "affine",
    ),
    _r(
        "one scale accepted for many channels",
        "You take a single scale where the axis asks for one per channel: it is spread over all of them, unsaid.",
        any_scales=True,
    ),
    _r("first scale for all", "You use the first channel's scale for every channel.", one_scale=True),
    _r("scales along the inputs", "Your scales run along the wrong axis.", wrong_axis=True),
    _r("flat", "The weights come back in one row; the layer's shape was promised.", flat=True),
)
