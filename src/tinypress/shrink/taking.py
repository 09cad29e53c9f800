"""Rules for operations that take a part of a value, or put parts together: slices, chunks, lookups, stacks."""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np
import torch

from tinypress.graph import Node, Ref, arguments
from tinypress.shrink.flow import Dims, Flow, Labels, operation
from tinypress.shrink.reshaping import dimension

aten = torch.ops.aten


def _replaced(x: Dims, place: int, *labels: Labels) -> Dims:
    return (*x[:place], *labels, *x[place + 1 :])


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
    return _replaced(known[0], place, np.concatenate([dims[place] for dims in known]))


def stack(flow: Flow, node: Node) -> Dims | None:
    """Values of one shape along a new dimension."""
    given = arguments(node)
    parts = [flow.dims(value) for value in given["tensors"]]
    if any(dims is None for dims in parts):
        return None
    first = parts[0] or ()
    for dims in parts[1:]:
        for one, other in zip(first, dims or (), strict=True):
            flow.tie(one, other)
    place = dimension(given.get("dim", 0), len(first) + 1)
    return (*first[:place], *flow.plain(node, (len(parts),)), *first[place:])


def cut(flow: Flow, node: Node) -> Dims | None:
    """A slice. Half of a dimension stays half of it if both halves lose the same; other places are literal."""
    given = arguments(node)
    x = flow.dims(given.get("self", given.get("input")))
    if x is None or node.shape is None:
        return None
    place = dimension(given.get("dim", 0), len(x))
    size = len(x[place])
    if node.shape[place] == size:
        return x
    start, end, step = given.get("start") or 0, given.get("end"), given.get("step", 1)
    if not (isinstance(start, int) and isinstance(step, int) and isinstance(end, int | None)):
        flow.fence(x[place], operation(node))
        return _replaced(x, place, *flow.plain(node, (node.shape[place],)))
    labels = x[place][slice(start, end, step)]
    if len(labels) != node.shape[place]:
        return None
    if flow.is_free(x[place]):
        begin = start + size if start < 0 else start
        if step == 1 and size % 2 == 0 and len(labels) == size // 2 and begin in (0, size // 2):
            flow.tie(x[place][: size // 2], x[place][size // 2 :])
        else:
            flow.fence(x[place], operation(node))
    return _replaced(x, place, labels)


def select(flow: Flow, node: Node) -> Dims | None:
    """One index of a dimension, which must keep its neurons; the dimension vanishes."""
    x = flow.dims(node.args[0])
    if x is None:
        return None
    place = dimension(arguments(node).get("dim", 0), len(x))
    flow.fence(x[place], operation(node))
    return _replaced(x, place)


def unbind(flow: Flow, node: Node) -> tuple[Dims, ...] | None:
    """Every index of a dimension for itself; the dimension vanishes."""
    x = flow.dims(node.args[0])
    result = select(flow, node)
    if x is None or result is None:
        return None
    place = dimension(arguments(node).get("dim", 0), len(x))
    return (result,) * len(x[place])


def pieces(flow: Flow, node: Node) -> tuple[Dims, ...] | None:
    """Chunks of one dimension. Chunks of one size lose the same neurons, so that they stay of one size."""
    x = flow.dims(node.args[0])
    if x is None:
        return None
    given = arguments(node)
    place = dimension(given.get("dim", 0), len(x))
    size = len(x[place])
    sections = given.get("split_sizes", given.get("split_size"))
    if sections is None:
        sections = -(-size // given["chunks"])
    if isinstance(sections, int):
        sections = [min(sections, size - start) for start in range(0, size, sections)]
    if not all(isinstance(count, int) for count in sections):
        return None
    ends = np.cumsum(sections)
    parts = [x[place][end - count : end] for count, end in zip(sections, ends, strict=True)]
    if flow.is_free(x[place]) and len(set(sections)) == 1:
        for part in parts[1:]:
            flow.tie(parts[0], part)
    return tuple(_replaced(x, place, part) for part in parts)


def halves(flow: Flow, node: Node) -> Dims | None:
    """A gated linear unit: one half of a dimension times the sigmoid of the other."""
    x = flow.dims(node.args[0])
    if x is None:
        return None
    place = dimension(arguments(node).get("dim", -1), len(x))
    half = len(x[place]) // 2
    flow.tie(x[place][:half], x[place][half:])
    return _replaced(x, place, x[place][:half])


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


def repeat(flow: Flow, node: Node) -> Dims | None:
    """Each dimension laid end to end several times."""
    x = flow.dims(node.args[0])
    if x is None or node.shape is None:
        return None
    new = len(node.shape) - len(x)
    result = []
    for i, size in enumerate(node.shape):
        if i < new:
            result.append(flow.plain(node, (size,))[0])
        else:
            result.append(np.tile(x[i - new], size // max(len(x[i - new]), 1)))
    return tuple(result)


def repeat_each(flow: Flow, node: Node) -> Dims | None:
    """Every index of one dimension several times in a row."""
    x = flow.dims(node.args[0])
    given = arguments(node)
    if x is None or node.shape is None or not isinstance(given.get("dim"), int):
        return None
    place = dimension(given["dim"], len(x))
    times, rest = divmod(node.shape[place], max(len(x[place]), 1))
    return None if rest else _replaced(x, place, np.repeat(x[place], times))


def turned(flow: Flow, node: Node) -> Dims | None:
    """Flip, roll, a triangle: places along the named dimensions count, so their neurons must all stay."""
    x = flow.dims(node.args[0])
    if x is None:
        return None
    named = arguments(node).get("dims")
    if named is None or node.op in (aten.triu, aten.tril):
        named = (-2, -1)
    for d in (named,) if isinstance(named, int) else named:
        flow.fence(x[dimension(d, len(x))], operation(node))
    return x


def embedding(flow: Flow, node: Node) -> Dims | None:
    """Rows of a table by number: the columns are neurons, the rows stay."""
    given = arguments(node)
    table, places = flow.dims(given["weight"]), flow.dims(given["indices"])
    if table is None or places is None:
        return None
    flow.fence(table[0], operation(node))
    flow.produce(given["weight"], 1)
    return (*places, *table[1:])


def lookup(flow: Flow, node: Node) -> Dims | None:
    """x[..., indices, ...] with tensors of places, all next to each other."""
    given = arguments(node)
    x, indices = flow.dims(given["self"]), given["indices"]
    if x is None or node.shape is None:
        return None
    named = [i for i, index in enumerate(indices) if index is not None]
    if not named or named != list(range(named[0], named[-1] + 1)):
        return None
    for i in named:
        flow.fence(x[i], operation(node))
    rank = len(node.shape) - (len(x) - len(named))
    taken = flow.plain(node, node.shape[named[0] : named[0] + rank])
    if named == [0]:
        flow.produce(given["self"], len(x) - 1)
    return (*x[: named[0]], *taken, *x[named[-1] + 1 :])


def by_index(flow: Flow, node: Node) -> Dims | None:
    """Places of one dimension, which must keep its neurons; the others keep theirs."""
    x = flow.dims(node.args[0])
    if x is None or node.shape is None:
        return None
    place = dimension(arguments(node)["dim"], len(x))
    others = [i for i in range(len(x)) if i != place]
    if len(node.shape) != len(x) or any(len(x[i]) != node.shape[i] for i in others):
        return None
    flow.fence(x[place], operation(node))
    return _replaced(x, place, *flow.plain(node, (node.shape[place],)))


def filled(flow: Flow, node: Node) -> Dims | None:
    """A value made of one number: it is as wide as whatever it meets."""
    return tuple(flow.fresh(size) for size in node.shape or ())


def take_part(flow: Flow, node: Node) -> Dims | None:
    """One of several results."""
    source, position = node.args
    parts = flow.parts.get(source.node) if isinstance(source, Ref) else None
    return None if parts is None else parts[position]


TAKING: dict[object, Callable[[Flow, Node], Dims | tuple[Dims, ...] | None]] = {
    **dict.fromkeys((aten.cat, aten.concat, aten.concatenate), cat),
    **dict.fromkeys((aten.chunk, aten.split, aten.split_with_sizes, aten.tensor_split), pieces),
    **dict.fromkeys((aten.expand, aten.expand_as, aten.broadcast_to), expand),
    **dict.fromkeys(
        (
            aten.pad, aten.constant_pad_nd, aten.reflection_pad1d, aten.reflection_pad2d,
            aten.replication_pad1d, aten.replication_pad2d,
        ),
        pad,
    ),
    **dict.fromkeys((aten.roll, aten.flip, aten.triu, aten.tril), turned),
    **dict.fromkeys((aten.index_select, aten.gather), by_index),
    **dict.fromkeys((aten.repeat, aten.tile), repeat),
    **dict.fromkeys(
        (aten.zeros, aten.ones, aten.full, aten.empty, aten.new_zeros, aten.new_ones, aten.new_full), filled
    ),
    aten.stack: stack,
    aten.slice: cut,
    aten.select: select,
    aten.unbind: unbind,
    aten.glu: halves,
    aten.repeat_interleave: repeat_each,
    aten.embedding: embedding,
    aten.index: lookup,
    operator.getitem: take_part,
}  # fmt: skip
