"""How neurons travel: a label for every index of every dimension, and which labels must leave together.

Each parameter starts with labels of its own. An operation ties the labels that meet in it: the columns of a
linear layer with the features it reads, the two sides of an addition with each other. In the end the labels
of one class are one neuron with everything that hangs on it, and a class that touched a fence is never cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        self._parent: list[int] = []
        self._fences: dict[int, dict[Why, Fence]] = {}
        self.values: dict[str, Dims] = {}
        self.parts: dict[str, tuple[Dims, ...]] = {}
        self.nodes: dict[str, Node] = {}
        self.producers: list[tuple[str, int]] = []

    def fresh(self, count: int) -> Labels:
        """``count`` labels that nothing else has."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        return np.arange(start, start + count)

    def fixed(self, count: int, fence: Fence) -> Labels:
        """A dimension of ``count`` indices that is never cut."""
        label = self.fresh(1)
        self.fence(label, fence)
        return np.repeat(label, count)

    def find(self, label: int) -> int:
        """The label that stands for the class of ``label``."""
        root = label
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[label] != root:
            self._parent[label], label = root, self._parent[label]
        return root

    def tie(self, one: Labels, other: Labels) -> None:
        """The neurons at the same positions of the two dimensions leave together."""
        if one is other:
            return
        if len(one) != len(other):
            raise Unfollowed
        for a, b in set(zip(one.tolist(), other.tolist(), strict=True)):
            if a == b:
                continue
            first, second = sorted((self.find(a), self.find(b)))
            if first != second:
                self._parent[second] = first
                moved = self._fences.pop(second, {})
                self._fences[first] = moved | self._fences.get(first, {})

    def fence(self, labels: Labels, fence: Fence) -> None:
        """None of these labels may be cut."""
        for label in np.unique(labels):
            self._fences.setdefault(self.find(int(label)), {}).setdefault(fence.why, fence)

    def mark(self, mark: Mark, labels: Labels) -> None:
        """Note what happened to the labels of a dimension."""
        self._marks.setdefault(mark, []).append(labels)

    def marked(self, mark: Mark) -> set[int]:
        """The labels that stand for the classes on which the mark was left."""
        return {self.find(int(label)) for labels in self._marks.get(mark, ()) for label in np.unique(labels)}

    def norm(self, node: Node, labels: Labels) -> None:
        """Statistics run over this dimension."""
        if self.exact:
            self.fence(labels, operation(node))
        else:
            self.norms.append((labels, operation(node)))

    def fence_of(self, labels: Labels) -> Fence | None:
        """The weightiest reason why some of these labels must stay, if there is one."""
        found: dict[Why, Fence] = {}
        for label in np.unique(labels):
            found |= self._fences.get(self.find(int(label)), {})
        order: tuple[Why, ...] = ("output", "single", "module", "operation", "input")
        return next((found[why] for why in order if why in found), None)

    def is_free(self, labels: Labels) -> bool:
        """True where at least one label could still be cut."""
        return any(not self._fences.get(self.find(int(label))) for label in np.unique(labels))

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
        return np.array([self.find(label) for label in range(len(self._parent))], dtype=np.int64)

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


def operation(node: Node) -> Fence:
    """The fence that a call stands for."""
    return Fence("operation", node.label, node.module)
