"""A bias as 32-bit integers in the scale of the sums it joins (Jacob et al. 2018, arXiv:1712.05877, §2.4)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tinypress.facts import QuantizedValue, QuantizedWeight


def bias_integers(
    bias: NDArray[np.floating], x: QuantizedValue, weight: QuantizedWeight
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """round(bias / scale) with scale = input scale * weight scale: the integers [O] and the scale, [] or [O]."""
    own = weight.scale.numpy().astype(np.float32)
    scale = np.asarray(np.float32(x.scale) * (own.reshape(()) if weight.axis is None else own), np.float32)
    rounded = np.clip(np.rint(bias.astype(np.float64) / scale), -(2**31) + 1, 2**31 - 1).astype(np.int32)
    return rounded, scale
