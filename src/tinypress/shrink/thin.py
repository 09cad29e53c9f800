"""Values of the masked run that are held without their zeros, and the operations that can go on without them.

Where one dimension of a value reads zero in some places, the rest says it all. What works on each place of that
dimension by itself is then done on the rest alone, which is as exact and as fast as the cut network is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tinypress.graph import Node, Ref, arguments
from tinypress.shrink.flow import Dims, Labels

aten = torch.ops.aten

Left = Callable[[Labels], NDArray[np.intp] | None]
"""The places of a dimension that stay; None where all do."""


@dataclass(frozen=True)
class Thin:
    """A value that is ``rest`` in these places of one dimension, ``width`` wide as a whole, and zero in the others."""

    rest: Tensor
    dim: int
    places: NDArray[np.intp]
    width: int

    def whole(self) -> Tensor:
        """With its zeros."""
        if len(self.places) == self.width:
            return self.rest
        shape = list(self.rest.shape)
        shape[self.dim] = self.width
        at = torch.from_numpy(self.places).to(self.rest.device)
        return self.rest.new_zeros(shape).index_copy_(self.dim, at, self.rest)

    def fits(self, other: Thin) -> bool:
        """Whether the other has its zeros in the same places."""
        same = (self.dim, self.width, self.rest.dim()) == (other.dim, other.width, other.rest.dim())
        return same and np.array_equal(self.places, other.places)


def taken(value: Tensor, dim: int, places: NDArray[np.intp] | None) -> Tensor:
    """These places of a dimension; None is all."""
    return value if places is None else value.index_select(dim, torch.from_numpy(places).to(value.device))


def whole(value: Any) -> Any:
    """A value with its zeros, where it was held without them."""
    return value.whole() if isinstance(value, Thin) else value


def left_places(gone: NDArray[np.bool_]) -> Left:
    """For dimensions, whose labels have to stay alive, the places of labels that are not ``gone``."""
    known: dict[int, NDArray[np.intp] | None] = {}

    def left(labels: Labels) -> NDArray[np.intp] | None:
        if id(labels) not in known:
            places = np.flatnonzero(~gone[labels])
            known[id(labels)] = places if len(places) < len(labels) else None
        return known[id(labels)]

    return left


def only_thin(dims: Dims | None, left: Left) -> int | None:
    """The one dimension that loses places, None where there is none or more."""
    found = [dim for dim, labels in enumerate(dims or ()) if left(labels) is not None]
    return found[0] if len(found) == 1 else None


def place_by_place(node: Node, values: Mapping[str, Any], dims: Dims | None, left: Left) -> Thin | None:
    """What ``node`` makes of thin values, place by place; None where it reads none, or works across places.

    Args:
        dims: the labels of the dimensions of the result.
    """
    first = next((value for name in node.inputs if isinstance(value := values[name], Thin)), None)
    if first is None or node.op not in _RULES or dims is None or only_thin(dims, left) != first.dim:
        return None
    places = left(dims[first.dim])
    if len(dims) != first.rest.dim() or places is None or not np.array_equal(places, first.places):
        return None
    channelwise, rule = _RULES[node.op]
    given: dict[str, Any] = {}
    for name, value in arguments(node).items():
        read = values[value.node] if isinstance(value, Ref) else value
        if isinstance(read, Thin):
            if not first.fits(read):
                return None
            given[name] = read.rest
        elif isinstance(read, Tensor):
            if name not in channelwise or len(read) != first.width:
                return None
            given[name] = taken(read, 0, first.places)
        elif isinstance(read, list | tuple) and any(isinstance(each, Ref) for each in read):
            return None
        else:
            given[name] = read
    changed = rule(given, first)
    if changed is None:
        return None
    assert node.op is not None
    return Thin(node.op(**{**given, **changed}), first.dim, first.places, first.width)


Rule = Callable[[Mapping[str, Any], Thin], dict[str, Any] | None]
"""From the arguments to those that are others without the zeros; None where places are not worked on by themselves."""


def _anywhere(given: Mapping[str, Any], x: Thin) -> dict[str, Any]:
    return {}


def _channels(given: Mapping[str, Any], x: Thin) -> dict[str, Any] | None:
    return {} if x.dim == 1 else None


def _before_last(count: int) -> Rule:
    """What moves along the last so many dimensions."""
    return lambda given, x: {} if x.dim < x.rest.dim() - count else None


def _padding(given: Mapping[str, Any], x: Thin) -> dict[str, Any] | None:
    return {} if x.dim < x.rest.dim() - len(given["pad"]) // 2 else None


def _depthwise(given: Mapping[str, Any], x: Thin) -> dict[str, Any] | None:
    """Each channel has a filter of its own."""
    own = x.dim == 1 and given.get("groups", 1) == x.width and given["weight"].shape[1] == 1
    return {"groups": len(x.places)} if own else None


_RULES: dict[object, tuple[tuple[str, ...], Rule]] = {
    **dict.fromkeys(
        (
            aten.relu, aten.relu_, aten.relu6, aten.relu6_, aten.hardtanh, aten.hardtanh_, aten.leaky_relu,
            aten.leaky_relu_, aten.gelu, aten.silu, aten.silu_, aten.sigmoid, aten.tanh, aten.hardswish,
            aten.hardswish_, aten.hardsigmoid, aten.elu, aten.dropout, aten.clone, aten.contiguous,
            aten.add, aten.add_, aten.sub, aten.mul, aten.mul_,
        ),
        ((), _anywhere),
    ),
    aten.batch_norm: (("weight", "bias", "running_mean", "running_var"), _channels),
    **dict.fromkeys((aten.conv1d, aten.conv2d, aten.conv3d), (("weight", "bias"), _depthwise)),
    **dict.fromkeys((aten.pad, aten.constant_pad_nd), ((), _padding)),
    **dict.fromkeys((aten.max_pool1d, aten.avg_pool1d, aten.adaptive_avg_pool1d), ((), _before_last(1))),
    **dict.fromkeys((aten.max_pool2d, aten.avg_pool2d, aten.adaptive_avg_pool2d), ((), _before_last(2))),
}  # fmt: skip
