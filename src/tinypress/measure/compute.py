"""Multiply-accumulates of a traced network, operation by operation; of any widths that the graph may be cut to."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from tinypress.graph import Node, Ref, Traced, arguments

aten = torch.ops.aten

Shape = tuple[int, ...]
ShapeOf = Callable[[str], Shape]


def count_macs(traced: Traced, shape_of: ShapeOf | None = None) -> int:
    """Multiply-accumulates of one sample: those of linear layers, convolutions, products, attention, recurrence.

    What is added, normed or activated is not counted. ``shape_of`` gives the shape of a value by name where it is
    another than the traced one.
    """
    if shape_of is None:
        shapes = {node.name: node.shape or () for node in traced}
        shape_of = shapes.__getitem__
    batch = max((x.shape[0] for x in traced.example if x.dim()), default=1)
    return sum(macs_of(node, shape_of) for node in traced if node.kind == "call") // max(batch, 1)


def macs_of(node: Node, shape_of: ShapeOf) -> int:
    """Multiply-accumulates of one call, of the whole batch; 0 for operations that do not multiply values."""
    count = _COUNTS.get(node.op)
    return 0 if count is None else count(node, lambda value: shape_of(value.node), shape_of(node.name))


_Of = Callable[[Ref], Shape]


def _linear(node: Node, of: _Of, out: Shape) -> int:
    return math.prod(out) * of(arguments(node)["weight"])[1]


def _convolution(node: Node, of: _Of, out: Shape) -> int:
    given = arguments(node)
    weight = of(given["weight"])
    # A grouped convolution that lost whole groups keeps the inputs of one: they stand in the weight.
    return math.prod(out) * math.prod(weight[1:])


def _transposed(node: Node, of: _Of, out: Shape) -> int:
    given = arguments(node)
    return math.prod(of(given["input"])) * math.prod(of(given["weight"])[1:])


def _product(node: Node, of: _Of, out: Shape) -> int:
    given = arguments(node)
    first = next(given[name] for name in ("mat1", "batch1", "self") if name in given)
    return math.prod(out) * of(first)[-1]


def _attention(node: Node, of: _Of, out: Shape) -> int:
    given = arguments(node)
    q, k = of(given["query"]), of(given["key"])
    return math.prod(q[:-1]) * k[-2] * (q[-1] + out[-1])


def _recurrent(node: Node, of: _Of, out: Shape) -> int:
    given = arguments(node)
    steps = math.prod(of(given["input"])[:-1])
    return steps * sum(math.prod(of(weight)) for weight in given["params"] if len(of(weight)) == 2)


def _einsum(node: Node, of: _Of, out: Shape) -> int:
    given = arguments(node)
    sizes: dict[str, int] = {}
    for names, value in zip(str(given["equation"]).split("->")[0].split(","), given["tensors"], strict=True):
        sizes.update(zip(names.strip(), of(value), strict=False))
    return math.prod(sizes.values())


_COUNTS: dict[object, Callable[[Node, _Of, Shape], int]] = {
    **dict.fromkeys((aten.conv1d, aten.conv2d, aten.conv3d), _convolution),
    **dict.fromkeys((aten.conv_transpose1d, aten.conv_transpose2d, aten.conv_transpose3d), _transposed),
    **dict.fromkeys((aten.matmul, aten.mm, aten.bmm, aten.addmm, aten.baddbmm), _product),
    **dict.fromkeys((aten.lstm, aten.gru, aten.rnn_tanh, aten.rnn_relu), _recurrent),
    aten.linear: _linear,
    aten.scaled_dot_product_attention: _attention,
    aten.einsum: _einsum,
}
