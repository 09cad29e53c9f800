"""Whether a cut network does what the whole one does, on the sizes that are left, told without values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from tinypress.graph import Node, Traced
from tinypress.shrink.flow import Labels
from tinypress.shrink.groups import Survey

aten = torch.ops.aten

# Whole numbers in lists of theirs are sizes, which move with a cut.
_SIZED = frozenset((
    aten.view, aten._unsafe_view, aten.reshape, aten.expand, aten.broadcast_to, aten.unflatten, aten.repeat, aten.tile,
    aten.layer_norm, aten.rms_norm, aten.split_with_sizes, aten.split, aten.tensor_split, aten.zeros, aten.ones,
    aten.full, aten.empty, aten.new_zeros, aten.new_ones, aten.new_full, aten.new_empty,
))  # fmt: skip
# Whole numbers among their arguments may be sizes or places, which move with a cut.
_COUNTING = frozenset((
    aten.slice, aten.narrow, aten.split, aten.split_with_sizes, aten.tensor_split, aten.chunk, aten.arange,
    aten.group_norm, aten.conv1d, aten.conv2d, aten.conv3d, aten.conv_transpose1d, aten.conv_transpose2d,
    aten.conv_transpose3d, aten.repeat_interleave, aten.one_hot, aten.unfold,
))  # fmt: skip


def other_operation(
    nodes: Sequence[Node], traced: Traced, found: Survey, left: Callable[[Labels], int]
) -> str | None:
    """The first of ``nodes`` that has another setting than in ``traced``, or another size than is left of it; None
    where there is none.

    Args:
        nodes: of the cut network, from ``record_once``: the same operations in the same order.
        left: the width that is left of a dimension, from ``widths_left``.
    """
    for node, was in zip(nodes, traced, strict=True):
        labels = found.labels.get(was.name, ())
        due = tuple(map(left, labels))
        what = was.tensor or f"{was.label} in {was.module or 'forward()'}"
        if labels and node.shape is not None and node.shape != due:
            return f"{what} is {node.shape}, not {due}"
        counting, sized = was.op in _COUNTING, was.op in _SIZED
        now, then = ((*each.args, *each.kwargs.values()) for each in (node, was))
        same = len(now) == len(then) and node.kwargs.keys() == was.kwargs.keys()
        if not same or not all(_alike(a, b, counting, sized) for a, b in zip(now, then, strict=True)):
            return f"{what} is called with other numbers than in the whole network"
        if (
            node.constant is not None
            and was.constant is not None
            and not (node.constant.shape == was.constant.shape and torch.equal(node.constant, was.constant))
        ):
            return f"{what} is made of other numbers than in the whole network"
    return None


def _alike(now: Any, was: Any, counting: bool, sized: bool) -> bool:
    """Whether arguments are the same but for sizes: whole numbers where ``counting``, and in lists where ``sized``."""
    if isinstance(now, tuple | list) and isinstance(was, tuple | list):
        return len(now) == len(was) and all(_alike(a, b, sized, sized) for a, b in zip(now, was, strict=True))
    if isinstance(now, bool) or isinstance(was, bool):
        return now is was
    if isinstance(now, int) and isinstance(was, int):
        return counting or now == was
    return bool(now == was) or (now != now and was != was)
