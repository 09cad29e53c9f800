"""What two recorded runs of a network, on different numbers of samples, say of every number of samples.

A size that is so many times the number of samples in both runs follows the batch; all else has to be equal in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from tinypress.graph.traced import FreeSize, Node


class Differs(Exception):
    """The runs differ in something that does not follow the batch."""


def other_batch(batch: int) -> int:
    """How many samples the second run has, beside ``batch``.

    So many more that what usual arithmetic makes of a number of samples, such as half of it but at least 1, its
    remainder, or at most 32 of it, is neither equal for both nor as many times larger (their difference is a prime
    number, so that all smaller remainders differ); and few enough that a loop over the samples ends.
    """
    return batch + 251


def joined(
    one: Sequence[Node], other: Sequence[Node], batches: tuple[int, int], batch: int
) -> tuple[Node, ...]:
    """The nodes of a graph for ``batch`` samples, from those of two runs on ``batches``.

    Raises:
        Differs: the runs do not tell what the graph is for another number of samples.
    """
    if len(one) != len(other):
        raise Differs
    return tuple(_node(a, b, batches, batch) for a, b in zip(one, other, strict=True))


def _node(one: Node, other: Node, batches: tuple[int, int], batch: int) -> Node:
    if (one.kind, one.op, one.inputs, one.module, one.tensor) != (
        other.kind, other.op, other.inputs, other.module, other.tensor
    ):  # fmt: skip
        raise Differs
    if (one.constant is None) != (other.constant is None) or (
        one.constant is not None and not torch.equal(one.constant, other.constant)  # type: ignore[arg-type]
    ):
        raise Differs
    if (one.shape, one.part_shapes, one.args, one.kwargs) == (
        other.shape, other.part_shapes, other.args, other.kwargs
    ):  # fmt: skip
        return one
    shape = None if one.shape is None else _both(one.shape, other.shape, batches, batch)
    parts = _both(one.part_shapes, other.part_shapes, batches, batch)
    return replace(
        one,
        args=_both(one.args, other.args, batches, batch),
        kwargs=_both(dict(one.kwargs), dict(other.kwargs), batches, batch),
        shape=None if shape is None else tuple(map(int, shape)),
        part_shapes=tuple(tuple(map(int, part)) for part in parts),
        batch_dims=tuple(place for place, size in enumerate(shape or ()) if isinstance(size, FreeSize)),
    )


def _both(one: Any, other: Any, batches: tuple[int, int], batch: int) -> Any:
    if type(one) is not type(other):
        raise Differs
    if isinstance(one, tuple):
        if len(one) != len(other):
            raise Differs
        return tuple(_both(a, b, batches, batch) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict):
        if one.keys() != other.keys():
            raise Differs
        return {key: _both(value, other[key], batches, batch) for key, value in one.items()}
    if one == other or (one != one and other != other):  # NaN as a number to fill in
        return one
    if type(one) is int and one * batches[1] == other * batches[0] and one % batches[0] == 0:
        return FreeSize.of(one // batches[0] * batch, one // batches[0])
    raise Differs
