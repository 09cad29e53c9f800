"""Residual branches that a network writes out in its own ``forward``: x + f(x) with f made of several of its layers.

They are read off the traced graph: an addition of which one operand is what the branch is computed from, and nothing
else, and of which nothing but the sum reads what is in the branch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tinypress.graph import Node, Ref, Traced, tensors_of
from tinypress.graph.run import compute
from tinypress.shrink.reference import execute

aten = torch.ops.aten


@dataclass(frozen=True)
class Branch:
    """The layers of f by path in order of execution, and the value that is their sum's other operand."""

    paths: tuple[str, ...]
    value: str
    traced: Traced = field(repr=False, compare=False)


def residual_branches(traced: Traced, model: nn.Module) -> tuple[Branch, ...]:
    """The branches of ``model`` that hold layers with parameters, in order of execution."""
    nodes = traced.by_name()
    readers: dict[str, set[str]] = {}
    for node in traced:
        for name in node.inputs:
            readers.setdefault(name, set()).add(node.name)
    found = []
    for node in traced:
        operands = [arg.node for arg in node.args if isinstance(arg, Ref)]
        if node.op not in (aten.add, aten.add_) or len(operands) != 2:
            continue
        for other, value in (operands, operands[::-1]):
            inside = _only_for(value, node.name, traced, readers)
            outside = {
                name
                for each in inside
                for name in nodes[each].inputs
                if name not in inside and nodes[name].kind in ("call", "input")
            }
            paths = _layers_in(inside, traced, model)
            if outside == {other} and nodes[value].shape == nodes[other].shape and paths:
                found.append(Branch(paths, value, traced))
                break
    return tuple(found)


def _only_for(value: str, reader: str, traced: Traced, readers: Mapping[str, set[str]]) -> set[str]:
    """The calls that are made for ``value`` and nothing else, where ``reader`` alone reads it."""
    if readers.get(value) != {reader}:
        return set()
    inside = {value}
    for node in reversed(tuple(traced)):
        used = readers.get(node.name, set())
        if node.kind == "call" and used and used <= inside and node.name not in traced.outputs:
            inside.add(node.name)
    return inside


def _layers_in(inside: set[str], traced: Traced, model: nn.Module) -> tuple[str, ...]:
    """The outermost modules with parameters all of whose operations are ``inside``."""
    places: dict[int, int] = {}
    for _, layer in model.named_modules(remove_duplicate=False):
        places[id(layer)] = places.get(id(layer), 0) + 1
    first: dict[str, int] = {}
    taken: list[str] = []
    for path, layer in model.named_modules():
        if not path or places[id(layer)] > 1 or any(path.startswith(f"{each}.") for each in taken):
            continue
        own = [
            (place, node)
            for place, node in enumerate(traced)
            if node.kind == "call" and f"{node.module}.".startswith(f"{path}.")
        ]
        if own and next(layer.parameters(), None) is not None and all(node.name in inside for _, node in own):
            taken.append(path)
            first[path] = own[0][0]
    return tuple(sorted(taken, key=first.__getitem__))


def outputs_without_branches(
    model: nn.Module, branches: Sequence[Branch], traced: Traced
) -> tuple[Tensor, ...]:
    """What the whole network returns for the traced example when these branches compute 0."""
    values = {branch.value for branch in branches}

    def call(node: Node, given: Mapping[str, Any]) -> Any:
        if node.kind != "call":
            return given[node.name]
        result = compute(node, given)
        return torch.zeros_like(result) if node.name in values else result

    outputs = execute(traced, model, tensors_of(traced.example), call)
    return tuple(outputs[name] for name in traced.outputs)
