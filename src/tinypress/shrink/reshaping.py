"""Rules for operations that move neurons without changing them: views, permutations, joins and cuts."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from tinypress.graph import Node, Ref, arguments
from tinypress.shrink.flow import Dims, Flow, Labels, operation

aten = torch.ops.aten


def dimension(index: int, rank: int) -> int:
    """``index`` counted from the front."""
    return index % max(rank, 1)


def view(flow: Flow, node: Node) -> Dims | None:
    """Dimensions that are merged or split. [B, C, S] -> [B, C * S] gives each channel S neighbours."""
    x = flow.dims(node.args[0])
    if x is None or node.shape is None or 0 in node.shape:
        return None
    source = flow.nodes[node.args[0].node]
    result: list[Labels] = []
    for old, new in _segments([len(labels) for labels in x], node.shape):
        if len(old) == len(new) == 1:
            result.append(x[old[0]])
            continue
        free = [i for i in old if len(x[i]) > 1 and flow.is_free(x[i])]
        # A neuron that is laid out along the batch, or across another one, has no fixed place any more.
        if len(free) > 1 or (free and any(i in source.batch_dims for i in old)):
            for i in free:
                flow.fence(x[i], operation(node))
        sizes = [len(x[i]) for i in old]
        outer, inner = 1, 1
        if free:
            place = old.index(free[0])
            outer, inner = int(np.prod(sizes[:place])), int(np.prod(sizes[place + 1 :]))
            merged = np.tile(np.repeat(x[free[0]], inner), outer)
        else:
            wide = [i for i in old if len(x[i]) > 1]
            merged = x[wide[0]] if len(wide) == 1 else flow.fixed(int(np.prod(sizes)), operation(node))
        result.extend(_split(flow, node, merged, [node.shape[i] for i in new]))
    return tuple(result)


def _segments(old: Sequence[int], new: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """The shortest runs of dimensions that hold equally many elements on both sides."""
    i = j = 0
    while i < len(old) or j < len(new):
        olds, news = [i] if i < len(old) else [], [j] if j < len(new) else []
        left = old[i] if olds else 1
        right = new[j] if news else 1
        i, j = i + len(olds), j + len(news)
        while left != right:
            if left < right:
                olds.append(i)
                left, i = left * old[i], i + 1
            else:
                news.append(j)
                right, j = right * new[j], j + 1
        yield olds, news


def _split(flow: Flow, node: Node, merged: Labels, sizes: Sequence[int]) -> list[Labels]:
    """The labels of each dimension: at most one may tell neurons apart, else they are fenced."""
    if len(sizes) == 1:
        return [merged]
    cube = merged.reshape(sizes)
    telling = [i for i in range(len(sizes)) if (cube != cube.take([0], axis=i)).any()]
    if len(telling) > 1:
        flow.fence(merged, operation(node))
    if len(telling) != 1:
        if flow.is_free(merged):
            return list(flow.plain(node, sizes))
        return [np.repeat(merged[:1], size) for size in sizes]
    labels = np.moveaxis(cube, telling[0], 0).reshape(sizes[telling[0]], -1)[:, 0]
    return [labels if i == telling[0] else flow.plain(node, (size,))[0] for i, size in enumerate(sizes)]


def permute(flow: Flow, node: Node) -> Dims | None:
    """Dimensions in another order."""
    x = flow.dims(node.args[0])
    if x is None:
        return None
    return tuple(x[dimension(d, len(x))] for d in arguments(node)["dims"])


def transpose(flow: Flow, node: Node) -> Dims | None:
    """Two dimensions change places."""
    x = flow.dims(node.args[0])
    if x is None:
        return None
    order = list(x)
    given = arguments(node)
    if "dim0" in given:
        one, other = dimension(given["dim0"], len(x)), dimension(given["dim1"], len(x))
        order[one], order[other] = order[other], order[one]
    else:  # aten.t
        order.reverse()
    return tuple(order)


def squeeze(flow: Flow, node: Node) -> Dims | None:
    """Dimensions of size 1 vanish, all of them or those named."""
    x = flow.dims(node.args[0])
    if x is None:
        return None
    named = arguments(node).get("dim", range(len(x)))
    gone = {dimension(d, len(x)) for d in ((named,) if isinstance(named, int) else named)}
    return tuple(labels for i, labels in enumerate(x) if not (i in gone and len(labels) == 1))


def unsqueeze(flow: Flow, node: Node) -> Dims | None:
    """A new dimension of size 1."""
    x = flow.dims(node.args[0])
    if x is None:
        return None
    place = dimension(arguments(node)["dim"], len(x) + 1)
    return (*x[:place], *flow.plain(node, (1,)), *x[place:])


def cat(flow: Flow, node: Node) -> Dims | None:
    """Values laid end to end along one dimension and tied in the others."""
    given = arguments(node)
    parts = [flow.dims(value) for value in given["tensors"]]
    known = [dims for dims in parts if dims is not None]
    if len(known) < len(parts) or len({len(dims) for dims in known}) != 1:
        return None
    place = dimension(given.get("dim", 0), len(known[0]))
    for dims in known[1:]:
        for i, labels in enumerate(dims):
            if i != place:
                flow.tie(known[0][i], labels)
    joined = np.concatenate([dims[place] for dims in known])
    return tuple(joined if i == place else labels for i, labels in enumerate(known[0]))


def cut(flow: Flow, node: Node) -> Dims | None:
    """A slice; the places it names are literal, so a dimension that is really cut must keep its neurons."""
    x = flow.dims(node.args[0])
    if x is None or node.shape is None:
        return None
    place = dimension(arguments(node).get("dim", 0), len(x))
    if node.shape[place] == len(x[place]):
        return x
    flow.fence(x[place], operation(node))
    return (*x[:place], *flow.plain(node, (node.shape[place],)), *x[place + 1 :])


def select(flow: Flow, node: Node) -> Dims | None:
    """One index of a dimension, which must keep its neurons; the dimension vanishes."""
    x = flow.dims(node.args[0])
    if x is None:
        return None
    place = dimension(arguments(node).get("dim", 0), len(x))
    flow.fence(x[place], operation(node))
    return (*x[:place], *x[place + 1 :])


def pieces(flow: Flow, node: Node) -> tuple[Dims, ...] | None:
    """Chunks of one dimension, which must keep its neurons."""
    x = flow.dims(node.args[0])
    if x is None:
        return None
    given = arguments(node)
    place = dimension(given.get("dim", 0), len(x))
    flow.fence(x[place], operation(node))
    size = len(x[place])
    sections = given.get("split_sizes", given.get("split_size"))
    if sections is None:
        sections = -(-size // given["chunks"])
    if isinstance(sections, int):
        sections = [min(sections, size - start) for start in range(0, size, sections)]
    return tuple((*x[:place], *flow.plain(node, (count,)), *x[place + 1 :]) for count in sections)


def pad(flow: Flow, node: Node) -> Dims | None:
    """Borders around the last dimensions; a padded dimension must keep its neurons."""
    x = flow.dims(node.args[0])
    if x is None or node.shape is None:
        return None
    padded = {i for i, labels in enumerate(x) if len(labels) != node.shape[i]}
    for i in padded:
        flow.fence(x[i], operation(node))
    return tuple(flow.plain(node, (size,))[0] if i in padded else x[i] for i, size in enumerate(node.shape))


def expand(flow: Flow, node: Node) -> Dims | None:
    """Repeats dimensions of size 1; the others keep their neurons."""
    x = flow.dims(node.args[0])
    if x is None or node.shape is None:
        return None
    new = len(node.shape) - len(x)
    return tuple(
        x[i - new] if i >= new and len(x[i - new]) == size else flow.plain(node, (size,))[0]
        for i, size in enumerate(node.shape)
    )


def take_part(flow: Flow, node: Node) -> Dims | None:
    """One of several results."""
    source, position = node.args
    parts = flow.parts.get(source.node) if isinstance(source, Ref) else None
    return None if parts is None else parts[position]


RESHAPING: dict[object, Callable[[Flow, Node], Dims | tuple[Dims, ...] | None]] = {
    **dict.fromkeys(
        (aten.view, aten.reshape, aten.flatten, aten.unflatten, aten._unsafe_view, aten.view_as), view
    ),
    **dict.fromkeys((aten.transpose, aten.swapaxes, aten.t), transpose),
    **dict.fromkeys((aten.squeeze,), squeeze),
    **dict.fromkeys((aten.cat, aten.concat, aten.concatenate), cat),
    **dict.fromkeys((aten.chunk, aten.split, aten.split_with_sizes), pieces),
    **dict.fromkeys((aten.expand, aten.expand_as), expand),
    **dict.fromkeys(
        (
            aten.pad,
            aten.constant_pad_nd,
            aten.reflection_pad1d,
            aten.reflection_pad2d,
            aten.replication_pad1d,
            aten.replication_pad2d,
        ),
        pad,
    ),
    aten.permute: permute,
    aten.unsqueeze: unsqueeze,
    aten.slice: cut,
    aten.select: select,
    operator.getitem: take_part,
}
