"""Goes through a traced network again, call by call: on other inputs, or with other tensors, than it was traced on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tinypress.errors import ModelError
from tinypress.graph.traced import Node, Ref, Traced

Call = Callable[[Node, Mapping[str, Any]], Any]
"""Makes the value of a node from the values before it; those of inputs and tensors stand there already."""


def execute(
    traced: Traced, inputs: Sequence[Tensor], tensors: Mapping[str, Tensor], call: Call
) -> dict[str, Any]:
    """The values of the graph's outputs by name. Gradients flow to ``tensors`` as the operators let them.

    Args:
        inputs: one tensor per argument of the network, of the traced shapes but for a batch that is free.
        tensors: every parameter and buffer by the name that the graph knows it by.
    """
    traced = traced.at(inputs)
    given = dict(zip(traced.inputs, inputs, strict=True))
    last = {name: place for place, node in enumerate(traced) for name in node.inputs}
    values: dict[str, Any] = {}
    for place, node in enumerate(traced):
        if node.kind == "input":
            values[node.name] = given[node.name]
        elif node.kind != "call":
            values[node.name] = node.constant if node.tensor is None else tensors[node.tensor]
        values[node.name] = call(node, values)
        for name in node.inputs:
            if last[name] == place and name not in traced.outputs:
                values.pop(name, None)
    return {name: values[name] for name in traced.outputs}


def compute(node: Node, values: Mapping[str, Any]) -> Any:
    """The value of a call from those that it reads."""
    assert node.op is not None
    return node.op(*filled(node.args, values.__getitem__), **filled(dict(node.kwargs), values.__getitem__))


def filled(value: Any, take: Callable[[str], Any]) -> Any:
    """Arguments with what ``take`` gives for each name in place of its ``Ref``; tuples come back as lists."""
    if isinstance(value, Ref):
        return take(value.node)
    if isinstance(value, tuple | list):
        return [filled(part, take) for part in value]
    if isinstance(value, dict):
        return {key: filled(part, take) for key, part in value.items()}
    return value


def check_can_run(call: str, traced: Traced) -> None:
    """Refuse a graph that needs more than its operators, its tensors and one free batch to be computed again.

    Raises:
        ModelError: names what is in the way.
    """
    if len(traced.outputs) != 1:
        raise ModelError(
            call, f"the network returns {len(traced.outputs)} tensors", "Wrap it so that it returns one"
        )
    nodes = traced.by_name()
    for node in traced:
        if node.kind in ("parameter", "buffer", "constant") and node.tensor is None and node.constant is None:
            raise ModelError(
                call,
                f"{node.name!r} is no tensor of the network",
                "Keep forward() to operators on tensors, without blocks such as no_grad in it",
            )
    if any(not nodes[name].batch_dims for name in traced.inputs):
        raise ModelError(
            call,
            "the network runs for one batch size only",
            "Remove the literal batch size from forward()",
        )


def on_device(node: Node, device: torch.device) -> Node:
    """``node`` with ``device`` for the one that it was traced on, where its operator makes a tensor."""
    if node.kind == "call" and any(isinstance(x, torch.device) for x in (*node.args, *node.kwargs.values())):
        args = tuple(device if isinstance(x, torch.device) else x for x in node.args)
        kwargs = {name: device if isinstance(x, torch.device) else x for name, x in node.kwargs.items()}
        return Node(**{**vars(node), "args": args, "kwargs": kwargs})
    if node.constant is not None:
        return Node(**{**vars(node), "constant": node.constant.to(device)})
    return node
