"""Rules for operations that move neurons without changing them: views and permutations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod

import numpy as np
import torch

from tinypress.graph import Node, arguments
from tinypress.shrink.flow import Dims, Fence, Flow, Labels, operation

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
        # A neuron that is laid out along another one, or along a batch of any size, has no fixed place any more.
        if len(free) > 1 and flow.axes is None:
            result.extend(_split(flow, node, flow.fresh(prod(len(x[i]) for i in old)), new))
            continue
        if len(free) > 1 or (free and any(i in source.batch_dims for i in old)):
            for i in free:
                flow.fence(x[i], operation(node))
            free = []
        sizes = [len(x[i]) for i in old]
        outer, inner = 1, 1
        if free:
            place = old.index(free[0])
            outer, inner = prod(sizes[:place]), prod(sizes[place + 1 :])
            merged = np.tile(np.repeat(x[free[0]], inner), outer)
        else:
            wide = [i for i in old if len(x[i]) > 1]
            merged = x[wide[0]] if len(wide) == 1 else flow.fixed(prod(sizes), operation(node))
        result.extend(_split(flow, node, merged, new))
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


def _split(flow: Flow, node: Node, merged: Labels, new: Sequence[int]) -> list[Labels]:
    """The labels of each of the ``new`` dimensions. Only one may tell neurons apart: which, ``flow.axes`` says."""
    sizes = [node.shape[i] for i in new] if node.shape else []
    if len(sizes) == 1:
        return [merged]
    cube = merged.reshape(sizes)
    telling = [] if merged.strides == (0,) else [i for i in range(len(sizes)) if _varies(cube, i)]
    if telling and flow.is_free(merged):
        if flow.axes is None:
            return _asked(flow, node, new)
        chosen = flow.axes.get(node.name, -1)
        if chosen in new and sizes[new.index(chosen)] == 1:
            flow.fence(merged, Fence("single", module=node.module))
            return list(flow.plain(node, sizes))
        if chosen in new:
            telling = [new.index(chosen)]
            rows = np.moveaxis(cube, telling[0], 0).reshape(sizes[telling[0]], -1)
            flow.tie(rows.ravel(), np.repeat(rows[:, 0], rows.shape[1]))
    if len(telling) > 1:
        flow.fence(merged, operation(node))
    if len(telling) != 1:
        if flow.is_free(merged):
            return list(flow.plain(node, sizes))
        return [np.repeat(merged[:1], size) for size in sizes]
    labels = np.moveaxis(cube, telling[0], 0).reshape(sizes[telling[0]], -1)[:, 0]
    return [labels if i == telling[0] else flow.plain(node, (size,))[0] for i, size in enumerate(sizes)]


def _varies(cube: Labels, axis: int) -> bool:
    """True where the labels along one axis are not all those at its beginning."""
    first = cube[(slice(None),) * axis + (slice(0, 1),)]
    return bool(np.count_nonzero(cube != first))


def _asked(flow: Flow, node: Node, new: Sequence[int]) -> list[Labels]:
    """Labels of their own for each new dimension, to see what becomes of them."""
    labels = {i: flow.fresh(node.shape[i]) for i in new} if node.shape else {}
    flow.splits.setdefault(node.name, {}).update(labels)
    return list(labels.values())


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


def moved(flow: Flow, node: Node) -> Dims | None:
    """Some dimensions go to other places, the others keep their order."""
    x = flow.dims(node.args[0])
    if x is None:
        return None
    given = arguments(node)
    from_, to = (
        [dimension(d, len(x)) for d in ((named,) if isinstance(named, int) else named)]
        for named in (given["source"], given["destination"])
    )
    rest = iter(i for i in range(len(x)) if i not in from_)
    places = dict(zip(to, from_, strict=True))
    return tuple(x[places[i] if i in places else next(rest)] for i in range(len(x)))


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


RESHAPING: dict[object, Callable[[Flow, Node], Dims | None]] = {
    **dict.fromkeys(
        (
            aten.view,
            aten.reshape,
            aten.flatten,
            aten.unflatten,
            aten._unsafe_view,
            aten.view_as,
            aten.reshape_as,
        ),
        view,
    ),
    **dict.fromkeys((aten.transpose, aten.swapaxes, aten.t, aten.numpy_T, aten.mT), transpose),
    **dict.fromkeys((aten.movedim, aten.moveaxis), moved),
    aten.squeeze: squeeze,
    aten.permute: permute,
    aten.unsqueeze: unsqueeze,
}
