"""Room for large results that is cheap to touch for the first time.

A large block fresh from the operating system is mapped page by page as it is first written, and for
hundreds of megabytes that takes longer than the work itself. NumPy asks for huge pages for its large
arrays and PyTorch does not, so the room is taken from NumPy.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def empty(count: int, dtype: torch.dtype) -> Tensor:
    """A flat CPU tensor of ``count`` elements whose contents are undefined."""
    if count == 0:
        return torch.empty(0, dtype=dtype)
    room = np.empty(count * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(room).view(dtype)
