"""Rules for operations that run over whole dimensions: sums, means, norms, softmax.

A neuron is taken away as if everything read zero in its place. A sum stays right then. A mean, maximum or norm over
neurons is that of the neurons that are left, which is another function, so it is for ``Flow`` to allow it. A softmax
over neurons, a sort or a cumulative sum never is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from tinypress.graph import Node, arguments
from tinypress.shrink.flow import Dims, Flow, operation
from tinypress.shrink.reshaping import dimension

aten = torch.ops.aten


def reduced(node: Node, rank: int) -> set[int]:
    """The dimensions that a call names, all of them if it names none."""
    given: Any = arguments(node).get("dim")
    named: Iterable[int] = (given,) if isinstance(given, int) else given or range(rank)
    return {dimension(d, rank) for d in named}


def _reduce(flow: Flow, node: Node, over_neurons: Callable[[Flow, Node, Any], None]) -> Dims | None:
    x = flow.dims(node.args[0])
    if x is None:
        return None
    gone = reduced(node, len(x))
    for position in gone:
        over_neurons(flow, node, x[position])
    if arguments(node).get("keepdim"):
        return tuple(flow.plain(node, (1,))[0] if i in gone else labels for i, labels in enumerate(x))
    return tuple(labels for i, labels in enumerate(x) if i not in gone)


def summing(flow: Flow, node: Node) -> Dims | None:
    """A sum over neurons stays right when a neuron that reads zero is left out."""
    return _reduce(flow, node, lambda flow, node, labels: None)


def averaging(flow: Flow, node: Node) -> Dims | None:
    """A mean, maximum or variance over neurons is that of those that are left."""
    return _reduce(flow, node, lambda flow, node, labels: flow.norm(node, labels))


def along(flow: Flow, node: Node) -> Dims | None:
    """Softmax and the like mix the indices of one dimension, whose neurons must all stay."""
    x = flow.dims(node.args[0])
    if x is None:
        return None
    for position in reduced(node, len(x)):
        flow.fence(x[position], operation(node))
    return x


def layer_norm(flow: Flow, node: Node) -> Dims | None:
    """The statistics run over the last dimensions, to which weight and bias are tied."""
    given = arguments(node)
    x = flow.dims(given.get("input"))
    if x is None:
        return None
    normed = x[-len(given["normalized_shape"]) :]
    for name in ("weight", "bias"):
        dims = flow.dims(given.get(name))
        for labels, own in zip(normed, dims or (), strict=False):
            flow.tie(labels, own)
    for labels in normed:
        flow.norm(node, labels)
    return x


def group_norm(flow: Flow, node: Node) -> Dims | None:
    """The statistics run over groups of neighbouring channels, each of which must lose as many as the others, and over
    all positions."""
    given = arguments(node)
    x = flow.dims(given.get("input"))
    if x is None:
        return None
    for name in ("weight", "bias"):
        dims = flow.dims(given.get(name))
        if dims:
            flow.tie(x[1], dims[0])
    each = len(x[1]) // given["num_groups"]
    if each == 1:  # a channel is its own group, and the number of groups is written down in the layer
        flow.fence(x[1], operation(node))
    elif flow.is_free(x[1]):
        if given["num_groups"] > 1 and not flow.exact:
            flow.tie(x[1], np.tile(x[1][:each], given["num_groups"]))
        flow.norm(node, x[1])
    for labels in x[2:]:
        if flow.is_free(labels):
            flow.norm(node, labels)
    return x


REDUCING: dict[object, Callable[[Flow, Node], Dims | None]] = {
    **dict.fromkeys(
        (aten.mean, aten.amax, aten.amin, aten.var, aten.std, aten.linalg_vector_norm, aten.norm), averaging
    ),
    **dict.fromkeys(
        (aten.softmax, aten.log_softmax, aten._softmax, aten._safe_softmax, aten.cumsum, aten.cumprod), along
    ),
    **dict.fromkeys((aten.layer_norm, aten.rms_norm), layer_norm),
    aten.sum: summing,
    aten.group_norm: group_norm,
}
