"""What a network costs once some of its neurons are gone, without cutting it: parameters, bytes or MACs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from tinypress.graph import Traced
from tinypress.measure.compute import count_macs
from tinypress.shrink.flow import widths_left
from tinypress.shrink.groups import Survey

Cost = Literal["parameters", "bytes", "macs"]
Per = Literal["parameters", "bytes", "macs", "latency_ms"]
Costing = Callable[[NDArray[np.bool_]], float]
"""From the labels that are gone to the cost."""


def costing(traced: Traced, found: Survey, model: nn.Module, cost: Cost) -> Costing:
    """How to work out ``cost`` of ``model`` for any labels of ``found`` that are gone.

    ``bytes`` are those of parameters and buffers, of each its own dtype; ``macs`` are those of one sample.
    """
    cuttable = np.zeros(len(found.root), dtype=bool)
    for units in found.units:
        cuttable[units] = True
    moving = cuttable[found.root]
    if cost == "macs":
        return _macs(traced, found, moving)
    tensors = {
        **dict(model.named_parameters()),
        **({} if cost == "parameters" else dict(model.named_buffers())),
    }
    traced_names = {node.tensor: node.name for node in traced if node.tensor is not None}
    fixed, open_ = 0, []
    for name, tensor in tensors.items():
        each = 1 if cost == "parameters" else tensor.element_size()
        dims = found.labels.get(traced_names.get(name, ""), ())
        if any(moving[labels].any() for labels in dims):
            open_.append((each, dims))
        else:
            fixed += each * tensor.numel()

    def cost_of(gone: NDArray[np.bool_]) -> int:
        left = widths_left(gone)
        return fixed + sum(each * math.prod(map(left, dims)) for each, dims in open_)

    return cost_of


def _macs(traced: Traced, found: Survey, moving: NDArray[np.bool_]) -> Costing:
    whole = {node.name: node.shape or () for node in traced}
    open_ = {
        name: dims for name, dims in found.labels.items() if any(moving[labels].any() for labels in dims)
    }

    def cost(gone: NDArray[np.bool_]) -> int:
        left = widths_left(gone)
        return count_macs(
            traced, lambda name: tuple(map(left, open_[name])) if name in open_ else whole[name]
        )

    return cost
