"""How neurons travel: a label for every index of every dimension, and which labels must leave together.

Each parameter starts with labels of its own. An operation ties the labels that meet in it: the columns of a
linear layer with the features it reads, the two sides of an addition with each other. In the end the labels
of one class are one neuron with everything that hangs on it, and a class that touched a fence is never cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tinypress.graph import Node, Ref

Labels = NDArray[np.int64]
Dims = tuple[Labels, ...]
"""One array of labels for each dimension of a value, as long as the dimension."""

Why = Literal["output", "single", "module", "operation", "input"]


@dataclass(frozen=True)
class Fence:
    """Why labels must not be cut: ``name`` is the operation or module that says so, ``module`` where."""

    why: Why
    name: str = ""
    module: str = ""


Mark = Literal["batch of a product", "summed in a product"]
"""What an operation does with the labels of a dimension, without tying or fencing them."""

Splits = dict[str, dict[int, Labels]]

_ROOM = 1 << 16  # labels at first; twice as many each time they run out


class Unfollowed(Exception):
    """A rule met sizes that it was not written for; the operation is then taken as unknown."""


class Flow:
    """The labels of all values seen so far. Rules read and tie them; the classes are read at the end.

    A view such as [B, S, H * D] -> [B, S, H, D] can lose whole rows of H or whole columns of D, not single ones.
    ``axes`` says by the view's name which of its new dimensions tells neurons apart; None asks to find out: each
    new dimension then gets labels of its own, and ``splits`` keeps them with the marks that later operations leave.

    Args:
        axes: the dimension that tells neurons apart, by name of the view that splits them.
        exact: fence dimensions that a norm runs over, since fewer neurons give other statistics. If not, the
            statistics are those of the neurons that are left, and ``norms`` says which labels that concerns.
    """

    def __init__(self, axes: Mapping[str, int] | None = None, *, exact: bool = True) -> None:
        self.axes = axes
        self.exact = exact
        self.splits: Splits = {}
        self.norms: list[tuple[Labels, Fence]] = []
        self._marks: dict[Mark, list[Labels]] = {}
        self._count = 0
        self._parent = np.zeros(_ROOM, dtype=np.int64)
        # by label that stands for a class, the place of its fences in the list of all sets of fences there are
        self._held = np.zeros(_ROOM, dtype=np.int64)
        self._sets: list[dict[Why, Fence]] = [{}]
        self._places: dict[frozenset[Fence], int] = {frozenset(): 0}
        self.values: dict[str, Dims] = {}
        self.parts: dict[str, tuple[Dims, ...]] = {}
        self.nodes: dict[str, Node] = {}
        self.producers: list[tuple[str, int]] = []

    def fresh(self, count: int) -> Labels:
        """``count`` labels that nothing else has."""
        start, self._count = self._count, self._count + count
        while self._count > len(self._parent):
            self._parent = np.concatenate([self._parent, np.zeros_like(self._parent)])
            self._held = np.concatenate([self._held, np.zeros_like(self._held)])
        labels = np.arange(start, self._count)
        self._parent[labels] = labels
        return labels

    def fixed(self, count: int, fence: Fence) -> Labels:
        """A dimension of ``count`` indices that is never cut."""
        label = self.fresh(1)
        self.fence(label, fence)
        return np.broadcast_to(label, (count,))

    def find(self, labels: Labels) -> Labels:
        """For each label the one that stands for its class, the smallest in it."""
        if labels.strides == (0,) and len(labels) > 1:
            return np.broadcast_to(self.find(labels[:1]), labels.shape)
        first = roots = self._parent[labels]
        while np.count_nonzero((above := self._parent[roots]) != roots):
            roots = above
        if roots is not first:
            self._parent[labels] = roots
        return roots

    def tie(self, one: Labels, other: Labels) -> None:
        """The neurons at the same positions of the two dimensions leave together."""
        if one is other:
            return
        if len(one) != len(other):
            raise Unfollowed
        if one.strides == other.strides == (0,):
            one, other = one[:1], other[:1]
        while True:  # a class that meets two others joins one of them at a time
            a, b = self.find(one), self.find(other)
            apart = a != b
            count = np.count_nonzero(apart)
            if not count:
                return
            if count < len(a):
                a, b = a[apart], b[apart]
            high, low = np.maximum(a, b), np.minimum(a, b)
            self._parent[high] = low
            all_joined = not np.count_nonzero(self._parent[high] != low)
            fenced = self._held[high] > 0
            if np.count_nonzero(fenced):
                self._hand_over(high[fenced])
            if all_joined:
                return

    def _hand_over(self, joined: Labels) -> None:
        """Classes that were joined to others give them their fences; where both have one, it is the other's."""
        roots, given = self.find(joined), self._held[joined]
        for more in distinct(given):
            to = roots[given == more]
            held = self._held[to]
            for one in distinct(held):
                self._held[to[held == one]] = self._set(self._sets[more] | self._sets[one])

    def _set(self, fences: dict[Why, Fence]) -> int:
        place = self._places.setdefault(frozenset(fences.values()), len(self._sets))
        if place == len(self._sets):
            self._sets.append(fences)
        return place

    def fence(self, labels: Labels, fence: Fence) -> None:
        """None of these labels may be cut."""
        roots = self.find(labels if labels.strides != (0,) else labels[:1])
        held = self._held[roots]
        for number in distinct(held):
            if fence.why not in self._sets[number]:  # the first of a kind stays
                self._held[roots[held == number]] = self._set({fence.why: fence} | self._sets[number])

    def mark(self, mark: Mark, labels: Labels) -> None:
        """Note what happened to the labels of a dimension."""
        self._marks.setdefault(mark, []).append(labels)

    def marked(self, mark: Mark) -> set[int]:
        """The labels that stand for the classes on which the mark was left."""
        return {root for labels in self._marks.get(mark, ()) for root in distinct(self.find(labels))}

    def norm(self, node: Node, labels: Labels) -> None:
        """Statistics run over this dimension."""
        if self.exact:
            self.fence(labels, operation(node))
        else:
            self.norms.append((labels, operation(node)))

    def fence_of(self, labels: Labels) -> Fence | None:
        """The weightiest reason why some of these labels must stay, if there is one."""
        if not np.count_nonzero(self._held[self.find(labels)]):
            return None
        held = self._held[self.find(np.unique(labels))][::-1]
        numbers, last = np.unique(held, return_index=True)
        found: dict[Why, Fence] = {}
        for number in numbers[np.argsort(-last)]:
            found |= self._sets[number]
        order: tuple[Why, ...] = ("output", "single", "module", "operation", "input")
        return next((found[why] for why in order if why in found), None)

    def is_free(self, labels: Labels) -> bool:
        """True where at least one label could still be cut."""
        return int(np.count_nonzero(self._held[self.find(labels)])) < len(labels)

    def is_parameter(self, value: object) -> bool:
        """True for an argument that is a parameter or buffer, not something computed."""
        return isinstance(value, Ref) and self.nodes[value.node].tensor is not None

    def produce(self, value: object, dim: int) -> None:
        """The neurons along ``dim`` of a parameter are computed here."""
        tensor = self.nodes[value.node].tensor if isinstance(value, Ref) else None
        if tensor is not None and (tensor, dim) not in self.producers:
            self.producers.append((tensor, dim))

    def roots(self) -> Labels:
        """For every label the one that stands for its class."""
        return self.find(np.arange(self._count))

    def dims(self, value: object) -> Dims | None:
        """The labels of an argument, None if it is no tensor of the graph."""
        return self.values.get(value.node) if isinstance(value, Ref) else None

    def fence_inputs(self, node: Node) -> None:
        """Nothing that reaches this call may be cut."""
        for name in node.inputs:
            for dims in (self.values.get(name, ()), *self.parts.get(name, ())):
                for labels in dims:
                    self.fence(labels, operation(node))

    def plain(self, node: Node, shape: Sequence[int]) -> Dims:
        """Labels for dimensions that are never cut, because of the call that made them."""
        return tuple(self.fixed(size, operation(node)) for size in shape)


def distinct(numbers: Labels) -> list[int]:
    """Which numbers there are, in rising order; mostly one."""
    first = numbers[:1]
    found: list[int] = (np.unique(numbers) if np.count_nonzero(numbers != first) else first).tolist()
    return found


def operation(node: Node) -> Fence:
    """The fence that a call stands for."""
    return Fence("operation", node.label, node.module)


def widths_left(gone: NDArray[np.bool_]) -> Callable[[Labels], int]:
    """How many indices of a dimension stay when the labels that are ``gone`` go; many values share a dimension, which
    is counted once. The labels have to be alive as long as what is returned."""
    counted: dict[int, int] = {}

    def left(labels: Labels) -> int:
        width = counted.get(id(labels))
        if width is None:
            width = counted[id(labels)] = len(labels) - int(np.count_nonzero(gone[labels]))
        return width

    return left
