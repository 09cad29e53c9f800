"""What a cut network must compute: the whole one, with the removed neurons read as zero wherever they appear.

The traced graph is run operation by operation on the weights of the whole network. Where statistics run over
removed neurons, they are those of the neurons that are left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tinypress.graph import Node, Ref, Traced, arguments, run, tensors_of
from tinypress.graph.run import compute, filled
from tinypress.shrink.cutting import Thinner
from tinypress.shrink.flow import Dims, Labels
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
    thinner: Mapping[str, Thinner] | None = None,
) -> tuple[Tensor, ...]:
    """What ``model`` returns for the traced example when the labels that are ``gone`` read as zero.

    Args:
        traced: the graph of ``model``.
        found: where its neurons are.
        model: the whole network; only read.
        gone: for every label of ``found``, from ``removed_labels``.
        inputs: others than the example, of as many samples as the graph allows.
        thinner: parts of its tensors that were taken out before; taken where the labels say the same part.
    """
    values = execute(
        traced,
        model,
        tensors_of(traced.given if inputs is None else tuple(inputs)),
        _masking(traced, found, gone, thinner or {}),
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


def _masking(
    traced: Traced, found: Survey, gone: NDArray[np.bool_], thinner: Mapping[str, Thinner]
) -> Callable[[Node, Mapping[str, Any]], Any]:
    """Makes the value of each node with the labels that are ``gone`` as zero."""
    whole = _read_whole(traced)
    parts_of = {node.name: thinner[node.tensor] for node in traced if node.tensor and node.tensor in thinner}
    places: dict[int, Tensor | None] = {}

    def lost(labels: Labels) -> Tensor | None:
        """Where a dimension with these labels is zero."""
        if id(labels) not in places:
            at = np.flatnonzero(gone[labels])
            places[id(labels)] = torch.from_numpy(at) if len(at) else None
        return places[id(labels)]

    def mask(value: Any, dims: Dims | None, fresh: bool, done: int | None = None) -> Any:
        if not isinstance(value, Tensor):
            return value
        for dim, labels in enumerate(dims or ()):
            at = lost(labels)
            if at is not None and dim != done and len(labels) == value.shape[dim]:
                fill = value.index_fill_ if fresh else value.index_fill
                value, fresh = fill(dim, at.to(value.device), 0), True
        return value

    def call(node: Node, values: Mapping[str, Any]) -> Any:
        dims = found.labels.get(node.name)
        if node.kind != "call":
            return values[node.name] if node.name in whole else mask(values[node.name], dims, False)
        if node.op in _STATISTICS and dims is not None:
            read = (labels for name in node.inputs for labels in found.labels.get(name, ()))
            if any(lost(labels) is not None for labels in read):
                return _of_the_rest(node, values, dims, found, gone)
        result = _of_what_is_left(node, values, found, gone, lost, parts_of)
        if result is not None:
            zeros, channels = result
            return mask(zeros, dims, True, channels)
        result = compute(node, values)
        parts = found.parts.get(node.name)
        if parts is not None and isinstance(result, tuple | list):
            return tuple(mask(part, labels, False) for part, labels in zip(result, parts, strict=True))
        return mask(result, dims, isinstance(result, Tensor) and _is_fresh(result, node, values))

    return call


_PLAIN_LAYERS = (aten.linear, aten.conv1d, aten.conv2d, aten.conv3d)


def _of_what_is_left(
    node: Node,
    values: Mapping[str, Any],
    found: Survey,
    gone: NDArray[np.bool_],
    lost: Callable[[Labels], Tensor | None],
    thinner: Mapping[str, Thinner],
) -> tuple[Tensor, int] | None:
    """A layer without the products whose factor reads zero and the sums that will, which are zeros then, and the
    dimension of these; None where there are none, or it is no such layer. The value that is read holds zeros in the
    places of removed neurons."""
    if node.op not in _PLAIN_LAYERS:
        return None
    given = arguments(node)
    x, weight, bias = (given.get(name) for name in ("input", "weight", "bias"))
    if not (isinstance(x, Ref) and isinstance(weight, Ref)) or given.get("groups", 1) != 1:
        return None
    x_labels, w_labels = found.labels.get(x.node), found.labels.get(weight.node)
    if x_labels is None or w_labels is None or values[x.node].dim() != len(x_labels):
        return None
    channels = len(x_labels) - len(w_labels) + 1
    reads, makes = w_labels[1], w_labels[0]
    if (lost(reads) is None and lost(makes) is None) or len(x_labels[channels]) != len(reads):
        return None
    dims = found.labels.get(node.name)
    if dims is None or not np.array_equal(gone[x_labels[channels]], gone[reads]):
        return None
    if not np.array_equal(gone[dims[channels]], gone[makes]):
        return None
    value, w_oi = values[x.node], values[weight.node]
    left = [np.flatnonzero(~gone[labels]) for labels in (makes, reads)]
    outputs, inputs = (torch.from_numpy(places).to(w_oi.device) for places in left)
    part = thinner.get(weight.node)
    if part is not None and part.kept.keys() <= {0, 1} and all(map(part.is_of, (0, 1), left)):
        w_left = part.tensor.detach()
    else:
        w_left = w_oi.index_select(0, outputs).index_select(1, inputs)
    taken = {x.node: value.index_select(channels, inputs), weight.node: w_left}
    if isinstance(bias, Ref):
        taken[bias.node] = values[bias.node].index_select(0, outputs)
    assert node.op is not None
    result: Tensor = node.op(
        *filled(node.args, taken.__getitem__), **filled(dict(node.kwargs), taken.__getitem__)
    )
    shape = list(result.shape)
    shape[channels] = len(makes)
    return result.new_zeros(shape).index_copy_(channels, outputs, result), channels


# Of these arguments it makes no difference whether removed neurons read as zero in them: what they are multiplied
# with, and what comes out, does.
_ALONGSIDE: dict[object, tuple[str, ...]] = {
    **dict.fromkeys((aten.linear, aten.conv1d, aten.conv2d, aten.conv3d), ("weight", "bias")),
    **dict.fromkeys((aten.conv_transpose1d, aten.conv_transpose2d), ("weight", "bias")),
    aten.batch_norm: ("weight", "bias", "running_mean", "running_var"),
    aten.embedding: ("weight",),
}


def _read_whole(traced: Traced) -> set[str]:
    """The parameters and buffers that need no zeros, which saves copies as large as the network."""
    found = {node.name for node in traced if node.tensor is not None}
    for node in traced:
        if node.kind == "call":
            named = {arguments(node).get(name) for name in _ALONGSIDE.get(node.op, ())}
            alongside = {value.node for value in named if isinstance(value, Ref)}
            elsewhere = Counter(node.inputs) - Counter(alongside)
            found -= elsewhere.keys()
    return found


def _is_fresh(result: Tensor, node: Node, values: Mapping[str, Any]) -> bool:
    """True where no value that the call read lies in the same memory."""
    own = result.untyped_storage().data_ptr()
    read = (part for name in node.inputs for part in tensors_of(values[name]))
    return all(part.untyped_storage().data_ptr() != own for part in read)


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
