"""What each operation does with the neurons that pass through it: layers, and the table of all rules.

A rule is a function ``(flow, node) -> labels of the result``: it ties what meets in the operation and fences
what it cannot follow. An operation without a rule fences all that reaches it, so a new rule is one function,
here or in the file of its kind, and one line in that file's table.

A neuron is taken away as if everything read zero in its place. A rule may let through only what then stays
right: a sum over neurons does, their mean does not.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from tinypress.graph import Node, arguments
from tinypress.shrink.attention import PRODUCTS
from tinypress.shrink.flow import Dims, Flow, Labels, operation
from tinypress.shrink.recurrent import RECURRENT
from tinypress.shrink.reducing import REDUCING
from tinypress.shrink.reshaping import RESHAPING
from tinypress.shrink.taking import TAKING

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
    flow.produce(given["weight"], 0)
    return (*x[:-1], w_oi[0])


def convolution(flow: Flow, node: Node) -> Dims | None:
    """Channels stand before the positions. Of a grouped convolution whole groups leave, or, where there are fewer
    groups than channels in one, the same channel of every group; depthwise is the case of one channel a group.
    """
    given = arguments(node)
    x, weight, bias = (flow.dims(given.get(name)) for name in ("input", "weight", "bias"))
    if x is None or weight is None or node.shape is None:
        return None
    spatial = len(weight) - 2
    channels = x[-spatial - 1]
    groups = given.get("groups", 1)
    inputs, outputs = len(weight[1]), len(weight[0]) // groups
    if groups == 1:
        flow.tie(channels, weight[1])
        flow.produce(given["weight"], 0)
    elif groups >= inputs:
        flow.tie(channels, np.repeat(channels[::inputs], inputs))
        flow.tie(np.repeat(channels[::inputs], outputs), weight[0])
        if inputs > 1:
            flow.produce(given["weight"], 0)
    else:
        flow.tie(channels, np.tile(weight[1], groups))
        flow.tie(weight[0], np.tile(weight[0][:outputs], groups))
        flow.produce(given["weight"], 0)
    if bias is not None:
        flow.tie(weight[0], bias[0])
    return (*x[: -spatial - 1], weight[0], *_moved(flow, node, x[-spatial:], node.shape))


def _moved(flow: Flow, node: Node, positions: Dims, shape: tuple[int, ...]) -> Dims:
    """What windows over these dimensions make of them: none of their indices can be told from its neighbours."""
    for labels in positions:
        flow.fence(labels, operation(node))
    return flow.plain(node, shape[-len(positions) :])


def transposed_convolution(flow: Flow, node: Node) -> Dims | None:
    """A weight [in, out / groups, ...]; only without groups."""
    given = arguments(node)
    x, weight, bias = (flow.dims(given.get(name)) for name in ("input", "weight", "bias"))
    if x is None or weight is None or node.shape is None or given.get("groups", 1) != 1:
        return None
    spatial = len(weight) - 2
    flow.tie(x[-spatial - 1], weight[0])
    flow.produce(given["weight"], 1)
    if bias is not None:
        flow.tie(weight[1], bias[0])
    return (*x[: -spatial - 1], weight[1], *_moved(flow, node, x[-spatial:], node.shape))


def pixels_from_channels(flow: Flow, node: Node) -> Dims | None:
    """[B, C r r, H, W] -> [B, C, H r, W r]: r r neighbouring channels become one."""
    x = flow.dims(node.args[0])
    if x is None or node.shape is None:
        return None
    each = len(x[-3]) // node.shape[-3]
    flow.tie(x[-3], np.repeat(x[-3][::each], each))
    return (*x[:-3], x[-3][::each], *_moved(flow, node, x[-2:], node.shape))


def channels_from_pixels(flow: Flow, node: Node) -> Dims | None:
    """[B, C, H r, W r] -> [B, C r r, H, W]: a channel becomes r r neighbouring ones."""
    x = flow.dims(node.args[0])
    if x is None or node.shape is None:
        return None
    each = node.shape[-3] // len(x[-3])
    return (*x[:-3], np.repeat(x[-3], each), *_moved(flow, node, x[-2:], node.shape))


def per_channel(flow: Flow, node: Node) -> Dims | None:
    """Batch norm, instance norm, PReLU: everything but the input has one value per channel, in dimension 1."""
    x = flow.dims(node.args[0])
    if x is None:
        return None
    given = arguments(node)
    if given.get("training") or given.get("use_input_stats"):  # statistics run over all positions
        for labels in x[2:]:
            flow.fence(labels, operation(node))
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
    results = tuple((*x[:-spatial], *_moved(flow, node, x[-spatial:], shape)) for shape in shapes if shape)
    return results if node.shape is None else results[0]


_ELEMENTWISE = (
    aten.relu, aten.relu_, aten.relu6, aten.relu6_, aten.leaky_relu, aten.leaky_relu_, aten.elu,
    aten.elu_, aten.celu, aten.selu, aten.selu_, aten.gelu, aten.silu, aten.silu_, aten.mish, aten.mish_,
    aten.hardswish, aten.hardswish_, aten.hardsigmoid, aten.hardsigmoid_, aten.hardtanh, aten.hardtanh_,
    aten.sigmoid, aten.sigmoid_, aten.log_sigmoid, aten.softplus, aten.tanh, aten.tanh_, aten.threshold,
    aten.clamp, aten.clamp_, aten.clamp_min, aten.clamp_max, aten.abs, aten.neg, aten.exp, aten.log,
    aten.sqrt, aten.rsqrt, aten.square, aten.reciprocal, aten.pow, aten.sin, aten.cos, aten.erf,
    aten.sign, aten.floor, aten.round, aten.add, aten.add_, aten.sub, aten.sub_, aten.mul, aten.mul_,
    aten.div, aten.div_, aten.rsub, aten.maximum, aten.minimum, aten.where, aten.masked_fill,
    aten.masked_fill_, aten.hardshrink, aten.softshrink, aten.log1p, aten.expm1, aten.logical_xor,
    aten.bitwise_not, aten.bitwise_and, aten.bitwise_or, aten.isnan, aten.isinf, aten.nan_to_num,
    aten.lerp, aten.addcmul, aten.type_as, aten.gt, aten.lt, aten.ge, aten.le, aten.eq, aten.ne,
    aten.logical_and, aten.logical_or, aten.logical_not, aten.dropout, aten.dropout_,
    aten.feature_dropout, aten.alpha_dropout, aten.clone, aten.contiguous, aten.detach, aten.detach_,
    aten.lift_fresh_copy, aten.to, aten._to_copy, aten.alias, aten.zeros_like, aten.ones_like,
)  # fmt: skip

_POOLING = (
    aten.max_pool1d, aten.max_pool2d, aten.max_pool3d, aten.avg_pool1d, aten.avg_pool2d, aten.avg_pool3d,
    aten.adaptive_avg_pool1d, aten.adaptive_avg_pool2d, aten.adaptive_avg_pool3d, aten.adaptive_max_pool1d,
    aten.adaptive_max_pool2d, aten.adaptive_max_pool3d, aten.max_pool1d_with_indices,
    aten.max_pool2d_with_indices, aten.upsample_nearest1d, aten.upsample_nearest2d, aten.upsample_nearest3d,
    aten.upsample_linear1d, aten.upsample_bilinear2d, aten.upsample_bicubic2d, aten.upsample_trilinear3d,
)  # fmt: skip

RULES: dict[object, Rule] = {
    **dict.fromkeys(_ELEMENTWISE, elementwise),
    **dict.fromkeys(_POOLING, pooling),
    **dict.fromkeys((aten.conv1d, aten.conv2d, aten.conv3d), convolution),
    **dict.fromkeys((aten.batch_norm, aten.instance_norm, aten.prelu), per_channel),
    **dict.fromkeys(
        (aten.conv_transpose1d, aten.conv_transpose2d, aten.conv_transpose3d), transposed_convolution
    ),
    **REDUCING,
    **RESHAPING,
    **TAKING,
    **PRODUCTS,
    **RECURRENT,
    aten.linear: linear,
    aten.pixel_shuffle: pixels_from_channels,
    aten.pixel_unshuffle: channels_from_pixels,
}
