"""What a cut network must compute: the whole one, with the removed neurons read as zero wherever they appear.

The traced graph is run operation by operation on the weights of the whole network. Where statistics run over
removed neurons, they are those of the neurons that are left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tinypress.graph import Node, Traced, run, tensors_of
from tinypress.graph.run import compute, filled
from tinypress.shrink.flow import Dims
from tinypress.shrink.groups import Survey

aten = torch.ops.aten

_STATISTICS = (
    aten.layer_norm, aten.rms_norm, aten.group_norm, aten.mean, aten.var, aten.std, aten.amax, aten.amin,
    aten.linalg_vector_norm, aten.norm,
)  # fmt: skip


def removed_labels(found: Survey, cuts: Mapping[int, Sequence[int]]) -> NDArray[np.bool_]:
    """For every label whether it goes when these units of these groups (by number) go."""
    gone = np.zeros(len(found.root), dtype=bool)
    for number, units in cuts.items():
        gone[found.units[number][list(units)]] = True
    return gone[found.root]


def masked_outputs(
    traced: Traced,
    found: Survey,
    model: nn.Module,
    gone: NDArray[np.bool_],
    inputs: Sequence[Tensor] | None = None,
) -> tuple[Tensor, ...]:
    """What ``model`` returns for the traced example when the labels that are ``gone`` read as zero.

    Args:
        traced: the graph of ``model``.
        found: where its neurons are.
        model: the whole network; only read.
        gone: for every label of ``found``, from ``removed_labels``.
        inputs: others of the example's shapes.
    """
    values = execute(
        traced,
        model,
        tensors_of(traced.example if inputs is None else tuple(inputs)),
        lambda node, values: _masked(node, values, found, gone),
    )
    return tuple(values[name] for name in traced.outputs)


def execute(
    traced: Traced,
    model: nn.Module,
    inputs: Sequence[Tensor],
    call: Callable[[Node, Mapping[str, Any]], Any],
) -> dict[str, Any]:
    """Go through the graph on the tensors of ``model``; ``call`` makes the value of each node but the inputs and
    tensors, which it may change. Returns the values of the outputs by name."""
    # copies, because an operation may write into what it is given
    buffers = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    with torch.no_grad():
        return run.execute(traced, [x.clone() for x in inputs], {**parameters, **buffers}, call)


def _masked(node: Node, values: Mapping[str, Any], found: Survey, gone: NDArray[np.bool_]) -> Any:
    dims = found.labels.get(node.name)
    if node.kind != "call":
        return _mask(values[node.name], dims, gone)
    touched = any(gone[labels].any() for name in node.inputs for labels in found.labels.get(name, ()))
    if touched and node.op in _STATISTICS and dims is not None:
        return _of_the_rest(node, values, dims, found, gone)
    result = compute(node, values)
    parts = found.parts.get(node.name)
    if parts is not None and isinstance(result, tuple | list):
        return tuple(_mask(part, labels, gone) for part, labels in zip(result, parts, strict=True))
    return _mask(result, dims, gone)


def _mask(value: Any, dims: Dims | None, gone: NDArray[np.bool_]) -> Any:
    if not isinstance(value, Tensor):
        return value
    for dim, labels in enumerate(dims or ()):
        lost = np.flatnonzero(gone[labels])
        if len(lost) and len(labels) == value.shape[dim]:
            value = value.index_fill(dim, torch.from_numpy(lost).to(value.device), 0)
    return value


def _of_the_rest(
    node: Node, values: Mapping[str, Any], dims: Dims, found: Survey, gone: NDArray[np.bool_]
) -> Tensor:
    def kept(name: str) -> Any:
        value = values[name]
        for dim, labels in enumerate(found.labels.get(name, ())):
            if gone[labels].any():
                value = value.index_select(dim, _left(gone[labels], value))
        return value

    args, kwargs = filled(node.args, kept), filled(dict(node.kwargs), kept)
    if node.op in (aten.layer_norm, aten.rms_norm):
        args[1] = list(args[0].shape[-len(args[1]) :])
    assert node.op is not None
    result: Tensor = node.op(*args, **kwargs)
    for dim, labels in enumerate(dims):
        if gone[labels].any():
            places = _left(gone[labels], result)
            shape = list(result.shape)
            shape[dim] = len(labels)
            result = result.new_zeros(shape).index_copy(dim, places, result)
    return result


def _left(gone: NDArray[np.bool_], value: Tensor) -> Tensor:
    """The places that are not gone, where ``value`` is."""
    return torch.from_numpy(np.flatnonzero(~gone)).to(value.device)
