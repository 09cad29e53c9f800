"""The arithmetic of quantization: from a range to a scale and a zero point, from real numbers to integers.

    q = clamp(round(x / scale) + zero_point, least, most)        x' = (q - zero_point) * scale

with halves rounded to the even neighbour, as in Jacob et al., "Quantization and Training of Neural
Networks for Efficient Integer-Arithmetic-Only Inference" (2018), equation 1. Every range is widened to
hold 0, so that 0.0 always has an integer of its own and comes back as exactly 0.0.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from tinypress.buffers import empty

Scheme = Literal["symmetric", "affine"]

SMALLEST_SCALE = torch.finfo(torch.float32).tiny
"""The smallest normal float32; a runtime may take a smaller scale for 0."""


def integer_range(bits: int, scheme: Scheme) -> tuple[int, int]:
    """The least and the largest integer: [-(2**(bits-1) - 1), 2**(bits-1) - 1], or [0, 2**bits - 1]."""
    if scheme == "symmetric":
        most = (1 << (bits - 1)) - 1
        return -most, most
    return 0, (1 << bits) - 1


def scale_and_zero_point(
    low: Tensor, high: Tensor, bits: int, scheme: Scheme, *, power_of_two: bool = False
) -> tuple[Tensor, Tensor]:
    """Scale and zero point of ranges from ``low`` to ``high``, elementwise.

    Symmetric: scale = max(\\|low\\|, \\|high\\|) / (2**(bits-1) - 1), zero point 0.
    Affine: scale = (high' - low') / (2**bits - 1), zero point = round(-low' / scale), where
    low' = min(low, 0) and high' = max(high, 0). A range that holds nothing but 0 has scale 1.

    Args:
        low: any shape, finite.
        high: the same shape, not below ``low``.
        power_of_two: round each scale up to a power of two, so that a shift multiplies by it and nothing clips.

    Returns:
        scale (float32) and zero point (int32), both of that shape.
    """
    least, most = integer_range(bits, scheme)
    # float64, because the width of a float32 range need not be a float32
    low = low.to(torch.float64).clamp(max=0.0)
    high = high.to(torch.float64).clamp(min=0.0)
    width = torch.maximum(-low, high) if scheme == "symmetric" else high - low
    scale = (width / most).to(torch.float32).clamp(min=SMALLEST_SCALE)
    scale = torch.where(width == 0, torch.ones_like(scale), scale)
    if power_of_two:
        scale = next_power_of_two(scale)
    if scheme == "symmetric":
        return scale, torch.zeros_like(scale, dtype=torch.int32)
    zero_point = torch.round(-low / scale.to(torch.float64)).clamp(least, most)
    return scale, zero_point.to(torch.int32)


def next_power_of_two(scale: Tensor) -> Tensor:
    """The smallest power of two that is not below each (positive, normal) element."""
    mantissa, exponent = torch.frexp(scale)  # scale = mantissa * 2**exponent, mantissa in [1/2, 1)
    return torch.ldexp(torch.ones_like(scale), exponent - (mantissa == 0.5).to(exponent.dtype))


def to_integers(
    values: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    bits: int,
    scheme: Scheme,
    *,
    out: Tensor | None = None,
    scratch: Tensor | None = None,
) -> Tensor:
    """Quantize float32 ``values``; ``scale`` and ``zero_point`` broadcast against them.

    Args:
        out: where the integers go (int8 if symmetric, uint8 if affine), of the shape of ``values``.
        scratch: float32 of the shape of ``values``, overwritten; it may be ``values`` itself.
    """
    least, most = integer_range(bits, scheme)
    real = torch.div(values, scale, out=scratch)
    torch.round(real, out=real)
    if scheme == "affine":
        real.add_(zero_point)
    real.clamp_(least, most)
    if out is None:
        return real.to(integer_dtype(scheme))
    return out.copy_(real)


def to_real(integers: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """What the integers stand for, in float32; ``scale`` and ``zero_point`` broadcast against them."""
    real = empty(integers.numel(), torch.float32).view(integers.shape)
    return real.copy_(integers).sub_(zero_point).mul_(scale)


def integer_dtype(scheme: Scheme) -> torch.dtype:
    """The dtype that holds the integers of ``scheme`` before they are packed."""
    return torch.int8 if scheme == "symmetric" else torch.uint8
