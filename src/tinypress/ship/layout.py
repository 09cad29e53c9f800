"""Layers in the shapes that kernels of 8-bit dot products like: the same integers, laid out otherwise."""

from __future__ import annotations

from collections.abc import Collection

import onnx

from tinypress.facts import QuantPlan
from tinypress.onnx_shapes import shapes_of
from tinypress.ship.deep_products import multiply_deep
from tinypress.ship.pixel_groups import group_pixels

_MARKS = (":before", ":after", ":groups", ":rows")  # of names that the rewriting gives


def laid_out(
    proto: onnx.ModelProto, plan: QuantPlan, isa: Collection[str]
) -> tuple[onnx.ModelProto, QuantPlan]:
    """A copy of the float graph, and its plan, as a file of signed weights has them on a processor with ``isa``."""
    graph = proto.graph
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    if any(mark in name for name in taken for mark in _MARKS):
        return proto, plan
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    changed.graph.ClearField("value_info")  # it holds the shapes of before
    plan = group_pixels(changed.graph, plan)
    if "amx_int8" in isa:
        plan = multiply_deep(changed.graph, plan, shapes_of(changed))
    return changed, plan
