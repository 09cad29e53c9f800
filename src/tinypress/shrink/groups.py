"""Which neurons of a network can leave, and what leaves with them.

The rules of ``rules.py`` run once over the traced graph; the classes of labels that they leave are read here
into ``Group`` facts that hold names and indices only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from tinypress.facts import Note
from tinypress.graph import Node, Traced
from tinypress.layers import can_resize, owned_tensors
from tinypress.shrink.flow import Dims, Fence, Flow, Unfollowed
from tinypress.shrink.rules import RULES


@dataclass(frozen=True)
class Slice:
    """One dimension of one parameter or buffer (by its first full name): ``indices[u]`` go with neuron u.

    A neuron that has no place here has an empty tuple; the dimension may hold indices of other groups too.
    """

    tensor: str
    dim: int
    indices: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Group:
    """``width`` neurons with all that hangs on each of them.

    ``producers`` are the paths of the linear layers and convolutions that compute these neurons, in order of
    execution: one, or several whose outputs are added or otherwise tied. A depthwise convolution computes
    nothing new from a channel and is no producer.
    """

    producers: tuple[str, ...]
    width: int
    slices: tuple[Slice, ...]

    def slice_of(self, tensor: str, dim: int) -> Slice | None:
        """The slice of that dimension of ``tensor``, None if the group does not reach it."""
        return next((s for s in self.slices if s.tensor == tensor and s.dim == dim), None)


def has_neurons(layer: nn.Module) -> bool:
    """True for the layers whose neurons can be named and scored: linear layers and convolutions."""
    return isinstance(layer, nn.Linear | _ConvNd) and not isinstance(layer, _ConvTransposeNd)


def find_groups(traced: Traced, model: nn.Module) -> tuple[tuple[Group, ...], tuple[Note, ...]]:
    """Every group of neurons that can be cut, in order of execution, and a note for each layer left alone.

    Args:
        traced: the graph of ``model``, from ``trace``.
        model: the network; only read.

    Returns:
        The groups, and notes: TP301 (warning) where an operation or module without a rule holds a layer's
        neurons, TP303 (note) where they are the network's output or tied to its input.
    """
    groups, left = survey(traced, model)
    return groups, tuple(note(layer, fence, model) for layer, fence in left.items())


def survey(traced: Traced, model: nn.Module) -> tuple[tuple[Group, ...], Mapping[str, Fence | None]]:
    """The groups, and for each layer left alone the fence in its way; None if the forward pass skips it."""
    flow, tensors = _follow(traced, model)
    modules = dict(model.named_modules())
    producers = [
        name
        for name in flow.producers
        if name.rpartition(".")[2] == "weight" and has_neurons(modules[name.rpartition(".")[0]])
    ]
    components = _components(flow, {name: tensors[name] for name in producers})
    free = [names for names in components if all(flow.fence_of(tensors[name][0]) is None for name in names)]
    groups = _groups(flow, tensors, free)
    reached = {s.tensor.rpartition(".")[0] for group in groups for s in group.slices if s.dim == 0}
    left: dict[str, Fence | None] = {}
    fence_of = {name: _fence(flow, tensors, names) for names in components for name in names}
    for path, layer in modules.items():
        owned = [
            name for name, p in owned_tensors(layer).items() if isinstance(p, nn.Parameter) and p.dim() > 1
        ]
        if path in reached or not owned:
            continue
        name = f"{path}.{owned[0]}" if path else owned[0]
        left[path] = fence_of.get(name) or (flow.fence_of(tensors[name][0]) if name in tensors else None)
    return groups, left


def _fence(flow: Flow, tensors: Mapping[str, Dims], names: list[str]) -> Fence | None:
    return next((fence for name in names if (fence := flow.fence_of(tensors[name][0]))), None)


def _follow(traced: Traced, model: nn.Module) -> tuple[Flow, dict[str, Dims]]:
    """Run the rules over the graph. Returns the labels, and those of each dimension of each tensor by name."""
    flow = Flow()
    tensors: dict[str, Dims] = {}
    for node in traced:
        flow.nodes[node.name] = node
        if node.kind != "call":
            flow.values[node.name] = _given(flow, node, model, tensors)
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


def _given(flow: Flow, node: Node, model: nn.Module, tensors: dict[str, Dims]) -> Dims:
    shape = node.shape or ()
    if node.tensor is None:
        return tuple(flow.fixed(size, Fence("input")) for size in shape)
    if node.tensor not in tensors:
        tensors[node.tensor] = tuple(flow.fresh(size) for size in shape)
        path = node.tensor.rpartition(".")[0]
        owner = model.get_submodule(path)
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


def _components(flow: Flow, weights: Mapping[str, Dims]) -> list[list[str]]:
    """Producers that share a neuron belong together."""
    components: list[tuple[set[int], list[str]]] = []
    for name, dims in weights.items():
        roots = {flow.find(int(label)) for label in dims[0]}
        touching = [c for c in components if c[0] & roots]
        merged = (roots.union(*(c[0] for c in touching)), [n for c in touching for n in c[1]] + [name])
        components = [c for c in components if c not in touching] + [merged]
    order = list(weights)
    return sorted((names for _, names in components), key=lambda names: order.index(names[0]))


def _groups(flow: Flow, tensors: Mapping[str, Dims], components: list[list[str]]) -> tuple[Group, ...]:
    roots = flow.roots()
    group_of = np.full(len(roots), -1)
    unit_of = np.zeros(len(roots), dtype=np.int64)
    widths = []
    for number, names in enumerate(components):
        found = np.concatenate([roots[tensors[name][0]] for name in names])
        units = found[np.sort(np.unique(found, return_index=True)[1])]
        group_of[units], unit_of[units] = number, np.arange(len(units))
        widths.append(len(units))
    slices: list[list[Slice]] = [[] for _ in components]
    for tensor, dims in tensors.items():
        for dim, labels in enumerate(dims):
            numbers = group_of[roots[labels]]
            for number in np.unique(numbers[numbers >= 0]):
                indices: list[list[int]] = [[] for _ in range(widths[number])]
                for index in np.flatnonzero(numbers == number):
                    indices[unit_of[roots[labels[index]]]].append(int(index))
                slices[number].append(Slice(tensor, dim, tuple(map(tuple, indices))))
    return tuple(
        Group(tuple(name.rpartition(".")[0] for name in names), width, tuple(parts))
        for names, width, parts in zip(components, widths, slices, strict=True)
    )


def note(layer: str, fence: Fence | None, model: nn.Module) -> Note:
    """What is said about a layer that keeps its neurons because of ``fence``."""
    kind = type(model.get_submodule(layer)).__name__
    subject = f"{layer or 'the network'} ({kind}) keeps all its neurons"
    if fence is None:
        return Note(
            "TP303", "note", layer, f"{subject}: no linear layer or convolution reads its weight as it is"
        )
    if fence.why == "output":
        return Note("TP303", "note", layer, f"{subject}: they are the network's output")
    if fence.why == "input":
        return Note(
            "TP303", "note", layer, f"{subject}: they are tied to the network's input or to a constant"
        )
    if fence.why == "module":
        where = "it" if fence.module == layer else repr(fence.module)
        return Note(
            "TP301", "warning", layer, f"{subject}: {where} is a {fence.name}, which has no rule for cutting"
        )
    where = f" in {fence.module!r}" if fence.module else ""
    return Note("TP301", "warning", layer, f"{subject}: they cannot be followed through {fence.name}{where}")
