"""Integers in another order around a layer: nodes that reshape and transpose what it reads and what it writes.

Every value between them has the scale and zero point of the one that is moved, so that a file in quantize-dequantize
form moves bytes there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tinypress.facts import QuantizedValue


class Moved:
    """``value``, moved step by step; ``end`` is the name of what has come out of it. All names begin with ``names``."""

    def __init__(self, value: str, integers: QuantizedValue, names: str) -> None:
        self.begin, self.end, self.integers, self._names = value, value, integers, names
        self.nodes: list[onnx.NodeProto] = []
        self.shapes: list[onnx.TensorProto] = []
        self.values: dict[str, QuantizedValue] = {value: integers}

    def reshape(self, *shape: int) -> Moved:
        name = f"{self._names}{len(self.nodes)}:shape"
        self.shapes.append(numpy_helper.from_array(np.array(shape, np.int64), name))
        return self._then("Reshape", name)

    def transpose(self, *order: int) -> Moved:
        return self._then("Transpose", perm=order)

    def named(self, value: str) -> Moved:
        """The same with ``value`` as the name of the last one."""
        del self.values[self.end]
        self.nodes[-1].output[0] = self.end = value
        self.values[value] = self.integers
        return self

    def _then(self, kind: str, *more: str, **attributes: object) -> Moved:
        value = f"{self._names}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self.end, *more], [value], **attributes))
        self.values[value] = self.integers
        self.end = value
        return self


@dataclass(frozen=True)
class Around:
    """What stands before the node at ``first``, and what behind the one at ``last``."""

    first: int
    last: int
    before: Moved
    after: Moved


def put(graph: onnx.GraphProto, moves: Sequence[Around]) -> dict[str, QuantizedValue]:
    """Add the nodes of ``moves`` to ``graph``; the values that they read and write."""
    before = {each.first: each.before for each in moves}
    after = {each.last: each.after for each in moves}
    nodes: list[onnx.NodeProto] = []
    for place, node in enumerate(graph.node):
        nodes += before[place].nodes if place in before else []
        nodes.append(node)
        nodes += after[place].nodes if place in after else []
    graph.ClearField("node")
    graph.node.extend(nodes)
    values: dict[str, QuantizedValue] = {}
    for each in moves:
        for moved in (each.before, each.after):
            graph.initializer.extend(moved.shapes)
            values |= moved.values
    return values
