"""From the 32-bit sum of a product to the 8-bit integers of its output: the two requantizations.

    q = clamp(zero_point + round(M acc)),    M = input scale * weight scale / output scale

(Jacob et al. 2018, arXiv:1712.05877, eq. 4 and 5). They differ in how M acc is worked out:

    float32   M is a float32, and so is M acc; halves go to the even neighbour. ONNX Runtime's kernels do this.
    fixed     M = 2**-n M0 / 2**31 with a 31-bit integer M0 (eq. 6). M0 acc is divided by 2**31, halves upwards, then
              by 2**n, halves away from zero: the two roundings of the paper's Appendix B, which gemmlowp, TFLite and
              CMSIS-NN carry out. Kernels for processors without floats do this.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tinypress.errors import InputError
from tinypress.facts import QuantizedValue

Requantization = Literal["float32", "fixed"]
Integers = NDArray[np.int64]

_LEAST, _MOST = -(2**31), 2**31 - 1


def check_requantization(call: str, requantization: str) -> None:
    """Raises InputError for another name than the two."""
    if requantization not in get_args(Requantization):
        raise InputError(
            call,
            f"requantization is {requantization!r}",
            f"Use one of {list(get_args(Requantization))}",
        )


def requantize(
    acc: Integers,
    scales: NDArray[np.float32],
    output: QuantizedValue,
    requantization: Requantization,
) -> NDArray[np.uint8]:
    """The output's integers of sums that stand for ``acc * scales``.

    Args:
        acc: any shape, within 32 bits.
        scales: float32 that broadcasts against it.
    """
    if requantization == "float32":
        return rounded(acc.astype(np.float32) * (scales / np.float32(output.scale)), output)
    multiplier, shift = fixed_point(scales.astype(np.float64) / np.float64(np.float32(output.scale)))
    return saturated(times_fixed_point(acc, multiplier, shift), output)


def rounded(steps: NDArray[np.float32], output: QuantizedValue) -> NDArray[np.uint8]:
    """Float32 numbers of steps to the output's integers, halves to the even neighbour."""
    # what lies outside 32 bits saturates as well, and must not overflow on the way
    whole = np.rint(np.clip(steps, -(2.0**30), 2.0**30)).astype(np.int64)
    return saturated(whole, output)


def saturated(steps: Integers, output: QuantizedValue) -> NDArray[np.uint8]:
    """Whole numbers of steps to the output's integers."""
    return np.clip(steps + output.zero_point, 0, 2**output.bits - 1).astype(np.uint8)


def fixed_point(real: NDArray[np.float64]) -> tuple[Integers, Integers]:
    """M0 and n with ``real`` = 2**-n M0 / 2**31 and 2**30 <= M0 < 2**31, elementwise (Jacob et al. 2018, eq. 6).

    A multiplier below 2**-31 is 0: no 32-bit sum would reach one step.
    """
    mantissa, exponent = np.frexp(real)
    multiplier = np.rint(mantissa * 2**31).astype(np.int64)
    carried = multiplier == 2**31
    multiplier = np.where(carried, 2**30, multiplier)
    shift = -(exponent.astype(np.int64) + carried)
    return np.where(shift > 31, 0, multiplier), np.where(shift > 31, 0, shift)


def times_fixed_point(acc: Integers, multiplier: Integers, shift: Integers) -> Integers:
    """``acc`` times ``multiplier / 2**31 / 2**shift`` in integers, rounded twice; elementwise.

    A negative ``shift`` moves ``acc`` to the left first. Everything saturates at 32 bits, as in a register.
    """
    left = np.clip(acc << np.maximum(-shift, 0), _LEAST, _MOST)
    high = np.clip((left * multiplier + (1 << 30)) >> 31, _LEAST, _MOST)
    return halved(high, np.maximum(shift, 0))


def halved(whole: Integers, times: Integers | int) -> Integers:
    """``whole / 2**times`` to the nearest integer, halves away from zero."""
    times = np.asarray(times, np.int64)
    half = np.where(times > 0, np.left_shift(np.int64(1), np.maximum(times - 1, 0)), 0)
    magnitude: Integers = (np.abs(whole) + half) >> times
    result: Integers = np.where(whole < 0, -magnitude, magnitude)
    return result
