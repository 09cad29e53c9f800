"""Which neurons of a network can leave, and what leaves with them.

``follow.py`` runs the rules over the traced graph; the classes of labels that they leave are read here into
``Group`` facts that hold names and indices only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from tinypress.facts import Note
from tinypress.graph import Traced
from tinypress.layers import named_tensors, owned_tensors
from tinypress.shrink.flow import Dims, Fence, Flow, Labels, distinct
from tinypress.shrink.follow import Units, axes_of, follow

Source = tuple[str, int]
"""A parameter by its first full name, and the dimension along which it computes neurons."""


@dataclass(frozen=True, eq=False)
class Slice:
    """One dimension of one parameter or buffer (by its first full name): which of its indices go with which neuron.

    Index ``at[i]`` goes with neuron ``units[i]``, of ``width`` neurons; they stand neuron by neuron, those of one in
    rising order. A neuron may have no place here, and the dimension may hold indices of other groups too.
    """

    tensor: str
    dim: int
    units: NDArray[np.int64]
    at: NDArray[np.int64]
    width: int

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """How many indices each neuron has, [width]."""
        return np.bincount(self.units, minlength=self.width)

    @cached_property
    def each_has_one(self) -> bool:
        """Whether each neuron has one index."""
        return len(self.units) == self.width and bool((self.units[1:] > self.units[:-1]).all())

    @cached_property
    def indices(self) -> tuple[tuple[int, ...], ...]:
        """The indices of each neuron."""
        ends = np.cumsum(self.counts).tolist()
        at = self.at.tolist()
        return tuple(tuple(at[start:end]) for start, end in zip([0, *ends], ends, strict=False))

    def of(self, units: Sequence[int]) -> NDArray[np.int64]:
        """The indices that go with any of these neurons."""
        chosen = np.zeros(self.width, dtype=bool)
        chosen[list(units)] = True
        return self.at[chosen[self.units]]

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Slice)
            and (self.tensor, self.dim, self.width) == (other.tensor, other.dim, other.width)
            and np.array_equal(self.units, other.units)
            and np.array_equal(self.at, other.at)
        )

    def __hash__(self) -> int:
        return hash((self.tensor, self.dim, self.width))


@dataclass(frozen=True)
class Group:
    """``width`` neurons with all that hangs on each of them.

    ``producers`` are the paths of the layers that compute these neurons, in order of execution: one, or several
    whose outputs are added or otherwise tied. A depthwise convolution computes nothing new from a channel and
    is no producer. ``sources`` are the parameters that do it. ``norms`` names the operations whose statistics
    run over these neurons, so that without some of them the others come out differently.
    """

    producers: tuple[str, ...]
    width: int
    slices: tuple[Slice, ...]
    sources: tuple[Source, ...] = ()
    norms: tuple[str, ...] = ()

    def slice_of(self, tensor: str, dim: int) -> Slice | None:
        """The slice of that dimension of ``tensor``, None if the group does not reach it."""
        return next((s for s in self.slices if s.tensor == tensor and s.dim == dim), None)


def has_neurons(layer: nn.Module) -> bool:
    """True for the layers whose neurons can be named and scored: linear layers and convolutions."""
    return isinstance(layer, nn.Linear | _ConvNd)


def neuron_dim(layer: nn.Module) -> int:
    """The dimension of the layer's weight along which its neurons lie."""
    return 1 if isinstance(layer, _ConvTransposeNd | nn.Embedding) else 0


def find_groups(
    traced: Traced, model: nn.Module, *, exact: bool = True, units: Units = "heads"
) -> tuple[tuple[Group, ...], tuple[Note, ...]]:
    """Every group of neurons that can be cut, in order of execution, and a note for each layer left alone.

    Args:
        traced: the graph of ``model``, from ``trace``.
        model: the network; only read.
        exact: leave alone neurons that a norm runs over.
        units: what leaves of an attention.

    Returns:
        The groups, and notes: TP301 (warning) where an operation or module without a rule holds a layer's
        neurons, TP303 (note) where they are the network's output or tied to its input.
    """
    found = survey(traced, model, exact=exact, units=units)
    return found.groups, tuple(note(layer, fence, model) for layer, fence in found.left.items())


@dataclass(frozen=True)
class Survey:
    """The groups; for each layer left alone the fence in its way, None if the forward pass skips it; and where
    each neuron is in every value of the graph: ``labels`` by value, ``root`` of each label, and the root of
    each unit of each group."""

    groups: tuple[Group, ...]
    left: Mapping[str, Fence | None]
    labels: Mapping[str, Dims]
    parts: Mapping[str, tuple[Dims, ...]]
    root: NDArray[np.int64]
    units: tuple[NDArray[np.int64], ...]


def survey(traced: Traced, model: nn.Module, *, exact: bool = True, units: Units = "heads") -> Survey:
    """Follow the neurons through the graph; see ``find_groups``."""
    flow, tensors = follow(traced, model, None, exact)
    if flow.splits:
        flow, tensors = follow(traced, model, axes_of(flow, units), exact)
    sources = [source for source in flow.producers if source[0] in tensors]
    fences = {(name, dim): flow.fence_of(tensors[name][dim]) for name, dim in sources}
    components = _components(flow, {source: tensors[source[0]][source[1]] for source in sources})
    free = [c for c in components if all(fences[source] is None for source in c)]
    groups, roots, unit_roots = _groups(flow, tensors, free)
    reached = {(part.tensor, part.dim) for group in groups for part in group.slices}
    read = {path for group in groups for path in group.producers}
    left: dict[str, Fence | None] = {}
    first_name = {id(p): name for name, p in named_tensors(model)[0].items()}
    fence_of = {
        source: next((found for each in c if (found := fences[each])), None)
        for c in components
        for source in c
    }
    for path, layer in model.named_modules():
        owned = [
            first_name[id(p)]
            for p in owned_tensors(layer).values()
            if isinstance(p, nn.Parameter) and p.dim() > 1
        ]
        if not owned or path in read:
            continue
        name, dim = owned[0], neuron_dim(layer)
        if not has_neurons(layer) and not type(layer).__module__.startswith("torch."):
            own = [source for source in sources if source[0].rpartition(".")[0] == path]
            if not own:  # computes no neurons
                continue
            name, dim = own[0]
        if name in tensors and len(tensors[name][dim]) == 1:  # the only one cannot leave
            continue
        if (name, dim) in reached:
            continue
        left[path] = fence_of.get((name, dim)) or (
            flow.fence_of(tensors[name][dim]) if name in tensors else None
        )
    return Survey(groups, left, flow.values, flow.parts, roots, unit_roots)


def _components(flow: Flow, sources: Mapping[Source, Labels]) -> list[list[Source]]:
    """Producers that share a neuron belong together; in the order of the first of each."""
    roots = flow.roots()
    owner = np.full(len(roots), -1)
    components: dict[int, list[Source]] = {}
    for place, (source, labels) in enumerate(sources.items()):
        own = roots[labels]
        before = owner[own]
        joined = [] if before.max(initial=-1) < 0 else [n for n in np.unique(before).tolist() if n >= 0]
        number = joined[0] if joined else place
        components.setdefault(number, []).append(source)
        for other in joined[1:]:
            components[number] += components.pop(other)
            owner[owner == other] = number
        owner[own] = number
    order = {source: place for place, source in enumerate(sources)}
    return [sorted(components[number], key=order.__getitem__) for number in sorted(components)]


def _groups(
    flow: Flow, tensors: Mapping[str, Dims], components: list[list[Source]]
) -> tuple[tuple[Group, ...], NDArray[np.int64], tuple[NDArray[np.int64], ...]]:
    roots = flow.roots()
    group_of = np.full(len(roots), -1)
    unit_of = np.zeros(len(roots), dtype=np.int64)
    widths, unit_roots = [], []
    for number, names in enumerate(components):
        found = np.concatenate([roots[tensors[name][dim]] for name, dim in names])
        units = found[np.sort(np.unique(found, return_index=True)[1])]
        group_of[units], unit_of[units] = number, np.arange(len(units))
        widths.append(len(units))
        unit_roots.append(units)
    norms: list[dict[str, None]] = [{} for _ in components]
    for labels, fence in flow.norms:
        for number in distinct(group_of[roots[labels]]):
            if number >= 0:
                norms[number][f"{fence.name} in {fence.module!r}" if fence.module else fence.name] = None
    slices: list[list[Slice]] = [[] for _ in components]
    for tensor, dims in tensors.items():
        for dim, labels in enumerate(dims):
            own = roots[labels]
            numbers = group_of[own]
            if numbers.max(initial=-1) < 0:
                continue
            found_here = distinct(numbers)
            for number in found_here:
                if number >= 0:
                    at = np.arange(len(own)) if len(found_here) == 1 else np.flatnonzero(numbers == number)
                    slices[number].append(_slice(tensor, dim, at, unit_of[own[at]], widths[number]))
    groups = tuple(
        Group(
            tuple(dict.fromkeys(name.rpartition(".")[0] for name, _ in names)),
            width,
            tuple(parts),
            tuple(names),
            tuple(marks),
        )
        for names, width, parts, marks in zip(components, widths, slices, norms, strict=True)
    )
    return groups, roots, tuple(unit_roots)


def _slice(tensor: str, dim: int, at: Labels, units: Labels, width: int) -> Slice:
    if (units[1:] < units[:-1]).any():
        order = np.argsort(units, kind="stable")
        at, units = at[order], units[order]
    return Slice(tensor, dim, units, at, width)


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
    if fence.why == "single":
        return Note(
            "TP303", "note", layer, f"{subject}: {fence.module!r} has one head, and heads leave whole"
        )
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
