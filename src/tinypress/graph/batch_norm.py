"""Which batch norms can be folded away: those that see one layer's output that nobody else sees."""

from __future__ import annotations

import torch

from tinypress.graph.traced import Node, Ref, Traced, arguments

_aten = torch.ops.aten
# Each layer with the number of dimensions of its output: a batch norm normalises dimension 1, which is the
# layer's output dimension only there.
_DIMENSIONS = {_aten.linear: 2, _aten.conv1d: 3, _aten.conv2d: 4, _aten.conv3d: 5}


def batch_norm_pairs(traced: Traced) -> tuple[tuple[str, str], ...]:
    """The pairs (path of a linear layer or convolution, path of the batch norm that directly follows it).

    A layer or batch norm that is used more than once, or whose weights are shared or computed, is in no pair.
    """
    nodes, users = traced.by_name(), traced.users()
    pairs = []
    for norm in traced:
        if norm.op is not _aten.batch_norm:
            continue
        given = arguments(norm)
        source = given.get("input")
        layer = nodes[source.node] if isinstance(source, Ref) else None
        if layer is None or layer.op not in _DIMENSIONS or given.get("training"):
            continue
        if layer.shape is None or len(layer.shape) != _DIMENSIONS[layer.op]:
            continue
        if users[layer.name] != (norm.name,) or layer.name in traced.outputs:
            continue
        layer_path = owner(layer, nodes, users, ("weight", "bias"))
        norm_path = owner(norm, nodes, users, ("running_mean", "running_var", "weight", "bias"))
        if layer_path and norm_path:
            pairs.append((layer_path, norm_path))
    return tuple(pairs)


def owner(
    call: Node, nodes: dict[str, Node], users: dict[str, tuple[str, ...]], names: tuple[str, ...]
) -> str | None:
    """The path of the module that owns all these tensors of the call and uses them here only."""
    given = arguments(call)
    owners = set()
    for name in names:
        value = given.get(name)
        if not isinstance(value, Ref):
            continue
        tensor = nodes[value.node].tensor
        if tensor is None or users[value.node] != (call.name,) or tensor.rpartition(".")[2] != name:
            return None
        owners.add(tensor.rpartition(".")[0])
    return owners.pop() if len(owners) == 1 and isinstance(given.get(names[0]), Ref) else None
