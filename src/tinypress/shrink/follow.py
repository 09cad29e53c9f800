"""The rules of ``rules.py``, run over a graph: where each neuron is in every value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import nn

from tinypress.graph import Node, Traced
from tinypress.layers import can_resize
from tinypress.shrink.flow import Dims, Fence, Flow, Labels, Unfollowed
from tinypress.shrink.rules import RULES

Units = Literal["heads", "head width"]
"""What leaves of an attention: whole heads, or the same places of every head."""


def axes_of(asked: Flow, units: Units) -> dict[str, int]:
    """Which new dimension of each view tells neurons apart, by what later operations did with each."""
    axes = {}
    batches, sums = asked.marked("batch of a product"), asked.marked("summed in a product")

    def among(marked: set[int], labels: Labels) -> bool:
        return not marked.isdisjoint(asked.find(labels).tolist())

    for name, dims in asked.splits.items():
        open_ = [i for i, labels in dims.items() if asked.is_free(labels)]
        batch = [i for i in dims if among(batches, dims[i])]
        wide = [i for i in open_ if len(dims[i]) > 1 and i not in batch]
        summed = [i for i in wide if among(sums, dims[i])]
        others = [i for i in wide if i not in summed]
        # heads leave whole or not at all, also a single one
        choices = (batch or others or summed) if units == "heads" else (wide or batch)
        if choices:
            axes[name] = max(choices, key=lambda i: (len(dims[i]), i))
    return axes


def follow(
    traced: Traced, model: nn.Module, axes: Mapping[str, int] | None, exact: bool
) -> tuple[Flow, dict[str, Dims]]:
    """Run the rules over the graph. Returns the labels, and those of each dimension of each tensor by name."""
    flow = Flow(axes, exact=exact)
    tensors: dict[str, Dims] = {}
    modules = dict(model.named_modules(remove_duplicate=False))
    for node in traced:
        flow.nodes[node.name] = node
        if node.kind != "call":
            flow.values[node.name] = _given(flow, node, modules, tensors)
            continue
        rule = RULES.get(node.op)
        try:
            result = rule(flow, node) if rule else None
        except Unfollowed:
            result = None
        if result is None:
            _unknown(flow, node)
        elif node.shape is None:
            flow.parts[node.name] = result  # type: ignore[assignment]
        else:
            flow.values[node.name] = result  # type: ignore[assignment]
    for name in traced.outputs:
        for labels in flow.values.get(name, ()):
            flow.fence(labels, Fence("output"))
    return flow, tensors


def _given(flow: Flow, node: Node, modules: Mapping[str, nn.Module], tensors: dict[str, Dims]) -> Dims:
    shape = node.shape or ()
    if node.tensor is None:
        return tuple(flow.fixed(size, Fence("input")) for size in shape)
    if node.tensor not in tensors:
        tensors[node.tensor] = tuple(flow.fresh(size) for size in shape)
        path = node.tensor.rpartition(".")[0]
        owner = modules[path]
        if not can_resize(owner):
            for labels in tensors[node.tensor]:
                flow.fence(labels, Fence("module", type(owner).__name__, path))
    return tensors[node.tensor]


def _unknown(flow: Flow, node: Node) -> None:
    """An operation that no rule follows: what it reads and what it makes stays as it is."""
    if node.shape is not None:
        flow.fence_inputs(node)
        flow.values[node.name] = flow.plain(node, node.shape)
    elif any(shape is not None for shape in node.part_shapes):
        flow.fence_inputs(node)
        flow.parts[node.name] = tuple(flow.plain(node, shape or ()) for shape in node.part_shapes)
