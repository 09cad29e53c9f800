"""Layers that follow one another with nothing between them that a positive factor of a channel could not pass through.

f(s x) = s f(x) holds for ReLU, for pooling, for padding with zeros and for everything that only moves numbers. Two
layers with nothing else between them can hand a factor of each channel from one to the other without a change in what
the network computes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from tinypress.graph.batch_norm import owner
from tinypress.graph.traced import Node, Ref, Traced, arguments

_aten = torch.ops.aten
_LAYERS = {_aten.linear, _aten.conv1d, _aten.conv2d, _aten.conv3d}
_POOLS = {
    _aten.max_pool1d,
    _aten.max_pool2d,
    _aten.max_pool3d,
    _aten.avg_pool1d,
    _aten.avg_pool2d,
    _aten.avg_pool3d,
    _aten.adaptive_avg_pool1d,
    _aten.adaptive_avg_pool2d,
    _aten.adaptive_avg_pool3d,
    _aten.adaptive_max_pool1d,
    _aten.adaptive_max_pool2d,
    _aten.adaptive_max_pool3d,
}
_ANYWHERE = {
    _aten.relu,
    _aten.relu_,
    _aten.leaky_relu,
    _aten.leaky_relu_,
    _aten.dropout,
    _aten.dropout_,
    _aten.clone,
}
_CLIPS = {_aten.hardtanh, _aten.hardtanh_, _aten.relu6, _aten.relu6_, _aten.clamp, _aten.clamp_}
_FLATTENS = {_aten.flatten, _aten.view, _aten.reshape}


@dataclass(frozen=True)
class Chain:
    """A factor of an output channel of ``first`` can be undone in the input channel of ``second``.

    ``first`` and ``second`` are paths of layers whose weights nobody else uses. ``spread`` neighbouring columns of
    ``second`` belong to one channel (1, or the places that a flatten put side by side). ``ceiling`` is the least of the
    upper bounds that are put on the numbers in between, as by ReLU6: a factor passes only below it.
    """

    first: str
    second: str
    spread: int = 1
    ceiling: float | None = None


def chains(traced: Traced) -> tuple[Chain, ...]:
    """All chains of a network, in the order in which it runs."""
    nodes, users = traced.by_name(), traced.users()
    found = []
    for node in traced:
        if node.op not in _LAYERS:
            continue
        first = owner(node, nodes, users, ("weight", "bias"))
        reached = _follow(node, nodes, users, traced.outputs)
        if first is None or reached is None:
            continue
        last, spread, ceiling = reached
        second = owner(last, nodes, users, ("weight", "bias"))
        if second is not None:
            found.append(Chain(first, second, spread, ceiling))
    return tuple(found)


def _follow(
    layer: Node, nodes: dict[str, Node], users: dict[str, tuple[str, ...]], outputs: tuple[str, ...]
) -> tuple[Node, int, float | None] | None:
    """The layer that reads all that ``layer`` makes, the columns a channel, and the ceiling in between."""
    spread, ceiling = 1, None
    here, tokens = layer, layer.op is _aten.linear
    while here.name not in outputs and len(users[here.name]) == 1:
        after = nodes[users[here.name][0]]
        given = arguments(after)
        if after.op in _LAYERS:
            source = given.get("input")
            reads = isinstance(source, Ref) and source.node == here.name
            flat = here.shape is not None and len(here.shape) == 2
            fits = (after.op is _aten.linear) == (tokens or flat)
            return (after, spread, ceiling) if reads and fits else None
        if after.op in _CLIPS:
            low, high = _bounds(after)
            if low is None or low != 0 or high is None:
                return None
            ceiling = high if ceiling is None else min(ceiling, high)
        elif after.op in _FLATTENS:
            places = _places(here, after)
            if places is None or tokens or spread > 1:
                return None
            spread = places
        elif not (
            after.op in _ANYWHERE
            or (after.op in _POOLS and not tokens)
            or (after.op is _aten.pad and _zeros(after))
        ):
            return None
        here = after
    return None


def _bounds(clip: Node) -> tuple[float | None, float | None]:
    given = arguments(clip)
    if clip.op in (_aten.relu6, _aten.relu6_):
        return 0.0, 6.0
    low, high = (
        (given.get("min_val", -1.0), given.get("max_val", 1.0))
        if clip.op in (_aten.hardtanh, _aten.hardtanh_)
        else (given.get("min"), given.get("max"))
    )
    numbers = [float(bound) if isinstance(bound, int | float) else None for bound in (low, high)]
    return numbers[0], numbers[1]


def _places(before: Node, after: Node) -> int | None:
    """How many numbers of each channel [B, C, ...] a flatten to [B, C * n] puts side by side: n."""
    if before.shape is None or after.shape is None or len(before.shape) < 2 or len(after.shape) != 2:
        return None
    if before.shape[0] != after.shape[0] or math.prod(before.shape[1:]) != after.shape[1]:
        return None
    return math.prod(before.shape[2:])


def _zeros(pad: Node) -> bool:
    given = arguments(pad)
    return given.get("mode", "constant") == "constant" and not given.get("value")


def norm_readers(traced: Traced) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """LayerNorms over the last dimension that linear layers alone read, with these: paths, in order.

    Each has a weight of its own, and none of their weights is used elsewhere.
    """
    nodes, users = traced.by_name(), traced.users()
    found = []
    for node in traced:
        if node.op is not _aten.layer_norm or node.name in traced.outputs:
            continue
        given = arguments(node)
        norm = owner(node, nodes, users, ("weight", "bias"))
        calls = [nodes[name] for name in users[node.name]]
        readers = [
            owner(call, nodes, users, ("weight",))
            for call in calls
            if call.op is _aten.linear and arguments(call).get("input") == Ref(node.name)
        ]
        one = len(given.get("normalized_shape", ())) == 1
        if norm and one and readers and len(readers) == len(calls) and all(readers):
            found.append((norm, tuple(reader for reader in readers if reader)))
    return tuple(found)
