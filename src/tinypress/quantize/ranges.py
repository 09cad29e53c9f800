"""The range of each value while samples stream by: whole, averaged, or clipped where that loses least.

    minmax      the least and the largest number seen
    moving      the average of the samples' least and largest numbers, the latest counting most
    percentile  clipped so that almost all numbers lie inside
    mse         clipped with the least squared error
    entropy     clipped with the least loss of information (TensorRT's method)

The last three are decided on a histogram of bounded memory; ``clipping.py`` has their equations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Literal, Protocol, get_args

import numpy as np

from tinypress.errors import DataError, InputError
from tinypress.facts import QuantizedValue
from tinypress.quantize.clipping import SHARE, Ends, affine, least_divergence, least_squares, percentile
from tinypress.quantize.histogram import NOTHING, Array, Histogram, widened

Ranges = Literal["minmax", "moving", "percentile", "mse", "entropy"]
LEVELS = 255
_CONSTANT = 0.01


class _Observer(Protocol):
    def see(self, values: Array, low: float, high: float) -> None: ...

    def ends(self) -> Ends: ...


class _Whole:
    """The least and the largest number, and zero."""

    def __init__(self) -> None:
        self.low, self.high = 0.0, 0.0

    def see(self, values: Array, low: float, high: float) -> None:
        self.low, self.high = min(self.low, low), max(self.high, high)

    def ends(self) -> Ends:
        return self.low, self.high


class _Moving:
    """Exponential moving averages of the samples' least and largest numbers (Jacob et al. 2018, §3.1).

    e <- (1 - c) e + c x with c = 0.01 from e = 0, divided at the end by 1 - (1 - c)^n, the weights' sum, so that the
    first sample counts no more than the others (as in Kingma and Ba 2015, arXiv:1412.6980, section 3).
    """

    def __init__(self) -> None:
        self.low, self.high, self.count = 0.0, 0.0, 0

    def see(self, values: Array, low: float, high: float) -> None:
        rows = values.reshape(len(values), -1)
        weights = _CONSTANT * (1 - _CONSTANT) ** np.arange(len(rows) - 1, -1, -1, dtype=np.float64)
        kept = (1 - _CONSTANT) ** len(rows)
        self.low = kept * self.low + float(weights @ np.minimum(rows.min(1), 0))
        self.high = kept * self.high + float(weights @ np.maximum(rows.max(1), 0))
        self.count += len(rows)

    def ends(self) -> Ends:
        sum_of_weights = 1 - (1 - _CONSTANT) ** self.count
        return (self.low / sum_of_weights, self.high / sum_of_weights) if self.count else (0.0, 0.0)


class _Clipped:
    """A histogram, clipped at the end."""

    def __init__(self, clip: Callable[[Histogram, int], Ends]) -> None:
        self.clip = clip
        self.seen = NOTHING

    def see(self, values: Array, low: float, high: float) -> None:
        self.seen = widened(self.seen, values, low, high)

    def ends(self) -> Ends:
        return self.clip(self.seen, LEVELS)


def _observer(method: Ranges, share: float) -> _Observer:
    match method:
        case "minmax":
            return _Whole()
        case "moving":
            return _Moving()
        case "percentile":
            return _Clipped(partial(percentile, share=share))
        case "mse":
            return _Clipped(least_squares)
        case "entropy":
            return _Clipped(least_divergence)


def check_ranges(call: str, methods: Iterable[str], share: float) -> None:
    """Refuse a method or share that there is not.

    Raises:
        InputError: one of them is unknown or out of range.
    """
    for method in methods:
        if method not in get_args(Ranges):
            raise InputError(call, f"ranges is {method!r}", f"Use one of {list(get_args(Ranges))}")
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0.5 < share <= 1:
        raise InputError(
            call, f"percentile is {share!r}", "Give a share over 0.5 and up to 1, such as 0.9999"
        )


def quantized_values(
    batches: Iterable[Mapping[str, Array]], methods: Mapping[str, Ranges], share: float = SHARE
) -> dict[str, QuantizedValue]:
    """Scale and zero point of every value in ``methods``, from what ``batches`` hold of it, one batch at a time.

    Args:
        batches: for each batch an array [B, ...] for every name in ``methods``.
        methods: how the range of each value is chosen.
        share: of the numbers that ``percentile`` keeps inside at each end.

    Raises:
        DataError: a value became NaN or infinite.
    """
    observers = {name: _observer(method, share) for name, method in methods.items()}
    for count, batch in enumerate(batches, start=1):
        for name, observer in observers.items():
            values = batch[name]
            if not values.size:
                continue
            low, high = float(values.min()), float(values.max())
            if not math.isfinite(high - low):  # NaN among the values makes both NaN
                raise DataError(
                    f"calibrate(batch {count})",
                    f"value {name!r} became NaN or infinite",
                    "Check the calibration samples and the network's weights",
                )
            observer.see(values, low, high)
    return {name: QuantizedValue(*affine(*observer.ends(), LEVELS)) for name, observer in observers.items()}
