"""What each operation does with the neurons that pass through it: the table of rules.

A rule is a function ``(flow, node) -> labels of the result``: it ties what meets in the operation and fences
what it cannot follow. An operation without a rule fences all that reaches it, so a new rule is one function
here, or in ``reshaping.py``, and one line in the table.

A neuron is taken away as if everything read zero in its place. A rule may let through only what then stays
right: a sum over neurons does, their mean does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from tinypress.graph import Node, Ref, arguments
from tinypress.shrink.flow import Dims, Flow, Labels, operation
from tinypress.shrink.reshaping import RESHAPING, dimension

Rule = Callable[[Flow, Node], Dims | tuple[Dims, ...] | None]
aten = torch.ops.aten


def elementwise(flow: Flow, node: Node) -> Dims | None:
    """Broadcasting: sizes are aligned at the last dimension, those equal to the result's are tied."""
    result: list[Labels | None] = [None] * len(node.shape or ())
    for name in node.inputs:
        dims = flow.values.get(name, ())
        for position in range(1, len(dims) + 1):
            labels, size = dims[-position], (node.shape or ())[-position]
            if len(labels) != size:
                continue
            known = result[-position]
            if known is None:
                result[-position] = labels
            else:
                flow.tie(known, labels)
    return tuple(
        flow.fixed(size, operation(node)) if labels is None else labels
        for labels, size in zip(result, node.shape or (), strict=True)
    )


def linear(flow: Flow, node: Node) -> Dims | None:
    """y[..., o] = sum over i of w[o, i] x[..., i] + b[o]."""
    given = arguments(node)
    x, w_oi, bias = (flow.dims(given.get(name)) for name in ("input", "weight", "bias"))
    if x is None or w_oi is None:
        return None
    flow.tie(x[-1], w_oi[1])
    if bias is not None:
        flow.tie(w_oi[0], bias[0])
    _produces(flow, given["weight"])
    return (*x[:-1], w_oi[0])


def convolution(flow: Flow, node: Node) -> Dims | None:
    """Channels in dimension 1; a depthwise convolution gives each of its input channels the same number of
    output channels. Other grouped convolutions have no rule yet."""
    given = arguments(node)
    x, weight, bias = (flow.dims(given.get(name)) for name in ("input", "weight", "bias"))
    if x is None or weight is None or node.shape is None:
        return None
    spatial = len(weight) - 2
    channels = x[-spatial - 1]
    groups = given.get("groups", 1)
    if groups == 1:
        flow.tie(channels, weight[1])
        _produces(flow, given["weight"])
    elif groups == len(channels) and len(weight[1]) == 1:
        flow.tie(np.repeat(channels, len(weight[0]) // groups), weight[0])
    else:
        return None
    if bias is not None:
        flow.tie(weight[0], bias[0])
    return (*x[: -spatial - 1], weight[0], *flow.plain(node, node.shape[-spatial:]))


def _produces(flow: Flow, weight: object) -> None:
    tensor = flow.nodes[weight.node].tensor if isinstance(weight, Ref) else None
    if tensor is not None and tensor not in flow.producers:
        flow.producers.append(tensor)


def per_channel(flow: Flow, node: Node) -> Dims | None:
    """Batch norm, instance norm, PReLU: everything but the input has one value per channel, in dimension 1."""
    x = flow.dims(node.args[0])
    if x is None:
        return None
    for value in (*node.args[1:], *node.kwargs.values()):
        dims = flow.dims(value)
        if dims == ():
            continue
        if dims is not None and len(dims[0]) == len(x[min(1, len(x) - 1)]):
            flow.tie(x[min(1, len(x) - 1)], dims[0])
        elif dims is not None and len(dims[0]) != 1:
            return None
    return x


def pooling(flow: Flow, node: Node) -> Dims | tuple[Dims, ...] | None:
    """Windows over the last dimensions; those before keep their neurons."""
    x = flow.dims(node.args[0])
    if x is None:
        return None
    spatial = 1 if "1d" in node.label else 3 if "3d" in node.label else 2
    shapes = node.part_shapes if node.shape is None else (node.shape,)  # two with the places of the maxima
    results = tuple((*x[:-spatial], *flow.plain(node, shape[-spatial:])) for shape in shapes if shape)
    return results if node.shape is None else results[0]


def _reduced(node: Node, rank: int) -> set[int]:
    """The dimensions that a call names, all of them if it names none."""
    given: Any = arguments(node).get("dim")
    named: Iterable[int] = (given,) if isinstance(given, int) else given or range(rank)
    return {dimension(d, rank) for d in named}


def _reduce(flow: Flow, node: Node, may_cut: bool) -> Dims | None:
    x = flow.dims(node.args[0])
    if x is None:
        return None
    gone = _reduced(node, len(x))
    if not may_cut:
        for position in gone:
            flow.fence(x[position], operation(node))
    if arguments(node).get("keepdim"):
        return tuple(flow.plain(node, (1,))[0] if i in gone else labels for i, labels in enumerate(x))
    return tuple(labels for i, labels in enumerate(x) if i not in gone)


def summing(flow: Flow, node: Node) -> Dims | None:
    """A sum over neurons stays right when a neuron that reads zero is left out."""
    return _reduce(flow, node, may_cut=True)


def reducing(flow: Flow, node: Node) -> Dims | None:
    """A mean, maximum or variance over neurons changes with their number; over other dimensions it does not."""
    return _reduce(flow, node, may_cut=False)


def along(flow: Flow, node: Node) -> Dims | None:
    """Softmax and the like mix the indices of one dimension, whose neurons must all stay."""
    x = flow.dims(node.args[0])
    if x is None:
        return None
    for position in _reduced(node, len(x)):
        flow.fence(x[position], operation(node))
    return x


def layer_norm(flow: Flow, node: Node) -> Dims | None:
    """The statistics run over the last dimensions, whose neurons must all stay."""
    x = flow.dims(node.args[0])
    if x is None:
        return None
    for labels in x[-len(arguments(node)["normalized_shape"]) :]:
        flow.fence(labels, operation(node))
    return x


def group_norm(flow: Flow, node: Node) -> Dims | None:
    """The statistics run over groups of channels, which must all stay."""
    x = flow.dims(node.args[0])
    if x is None:
        return None
    flow.fence(x[1], operation(node))
    return x


_ELEMENTWISE = (
    aten.relu, aten.relu_, aten.relu6, aten.relu6_, aten.leaky_relu, aten.leaky_relu_, aten.elu, aten.elu_,
    aten.celu, aten.selu, aten.selu_, aten.gelu, aten.silu, aten.silu_, aten.mish, aten.mish_, aten.hardswish,
    aten.hardswish_, aten.hardsigmoid, aten.hardsigmoid_, aten.hardtanh, aten.hardtanh_, aten.sigmoid,
    aten.sigmoid_, aten.log_sigmoid, aten.softplus, aten.tanh, aten.tanh_, aten.threshold,
    aten.clamp, aten.clamp_, aten.clamp_min, aten.clamp_max, aten.abs, aten.neg, aten.exp, aten.log, aten.sqrt,
    aten.rsqrt, aten.square, aten.reciprocal, aten.pow, aten.sin, aten.cos, aten.erf, aten.sign, aten.floor,
    aten.round, aten.add, aten.add_, aten.sub, aten.sub_, aten.mul, aten.mul_, aten.div, aten.div_, aten.rsub,
    aten.maximum, aten.minimum, aten.where, aten.gt, aten.lt, aten.ge, aten.le, aten.eq, aten.ne,
    aten.logical_and, aten.logical_or, aten.logical_not, aten.dropout, aten.dropout_, aten.feature_dropout,
    aten.alpha_dropout, aten.clone, aten.contiguous, aten.detach, aten.detach_, aten.lift_fresh_copy, aten.to,
    aten._to_copy, aten.alias, aten.zeros_like, aten.ones_like,
)  # fmt: skip

_POOLING = (
    aten.max_pool1d, aten.max_pool2d, aten.max_pool3d, aten.avg_pool1d, aten.avg_pool2d, aten.avg_pool3d,
    aten.adaptive_avg_pool1d, aten.adaptive_avg_pool2d, aten.adaptive_avg_pool3d, aten.adaptive_max_pool1d,
    aten.adaptive_max_pool2d, aten.adaptive_max_pool3d, aten.max_pool1d_with_indices,
    aten.max_pool2d_with_indices, aten.upsample_nearest1d, aten.upsample_nearest2d, aten.upsample_bilinear2d,
)  # fmt: skip

RULES: dict[object, Rule] = {
    **dict.fromkeys(_ELEMENTWISE, elementwise),
    **dict.fromkeys(_POOLING, pooling),
    **dict.fromkeys((aten.conv1d, aten.conv2d, aten.conv3d), convolution),
    **dict.fromkeys((aten.batch_norm, aten.instance_norm, aten.prelu), per_channel),
    **dict.fromkeys((aten.mean, aten.amax, aten.amin, aten.var, aten.std), reducing),
    **dict.fromkeys((aten.softmax, aten.log_softmax, aten.cumsum), along),
    **RESHAPING,
    aten.linear: linear,
    aten.sum: summing,
    aten.layer_norm: layer_norm,
    aten.group_norm: group_norm,
}
