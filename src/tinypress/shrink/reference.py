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
from tinypress.layers import named_tensors
from tinypress.shrink.cutting import Thinner
from tinypress.shrink.flow import Dims, Labels
from tinypress.shrink.groups import Survey
from tinypress.shrink.thin import Left, Thin, left_places, only_thin, place_by_place, taken, whole

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
    return tuple(whole(values[name]) for name in traced.outputs)


def execute(
    traced: Traced,
    model: nn.Module,
    inputs: Sequence[Tensor],
    call: Callable[[Node, Mapping[str, Any]], Any],
) -> dict[str, Any]:
    """Go through the graph on the tensors of ``model``; ``call`` makes the value of each node but the inputs and
    tensors, which it may change. Returns the values of the outputs by name."""
    parameters, buffers = named_tensors(model)
    tensors = {name: tensor.detach() for name, tensor in {**parameters, **buffers}.items()}
    if traced.writes:
        tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    with torch.no_grad():
        return run.execute(traced, [x.clone() for x in inputs], tensors, call)


def _masking(
    traced: Traced, found: Survey, gone: NDArray[np.bool_], thinner: Mapping[str, Thinner]
) -> Callable[[Node, Mapping[str, Any]], Any]:
    """Makes the value of each node with the labels that are ``gone`` as zero; where that is one dimension of it, it is
    held without the zeros for as long as operations can do without them."""
    read_whole = _read_whole(traced)
    parts_of = {node.name: thinner[node.tensor] for node in traced if node.tensor and node.tensor in thinner}
    left = left_places(gone)
    zeros: dict[int, Tensor] = {}

    def mask(value: Any, dims: Dims | None, fresh: bool) -> Any:
        if not isinstance(value, Tensor):
            return value
        for dim, labels in enumerate(dims or ()):
            if left(labels) is not None and len(labels) == value.shape[dim]:
                if id(labels) not in zeros:
                    zeros[id(labels)] = torch.from_numpy(np.flatnonzero(gone[labels]))
                fill = value.index_fill_ if fresh else value.index_fill
                value, fresh = fill(dim, zeros[id(labels)].to(value.device), 0), True
        return value

    def call(node: Node, values: Mapping[str, Any]) -> Any:
        dims = found.labels.get(node.name)
        if node.kind != "call":
            return values[node.name] if node.name in read_whole else mask(values[node.name], dims, False)
        thin = place_by_place(node, values, dims, left)
        if thin is None:
            thin = _of_what_is_left(node, values, found, left, parts_of)
        if thin is not None:
            return thin if only_thin(dims, left) == thin.dim else mask(thin.whole(), dims, True)
        if node.op in _STATISTICS and dims is not None:
            read = (labels for name in node.inputs for labels in found.labels.get(name, ()))
            if any(left(labels) is not None for labels in read):
                return _of_the_rest(node, values, dims, found, left)
        read_by = {name: whole(values[name]) for name in node.inputs}
        result = compute(node, read_by)
        parts = found.parts.get(node.name)
        if parts is not None and isinstance(result, tuple | list):
            return tuple(mask(part, labels, False) for part, labels in zip(result, parts, strict=True))
        return mask(result, dims, isinstance(result, Tensor) and _is_fresh(result, node, read_by))

    return call


_PLAIN_LAYERS = (aten.linear, aten.conv1d, aten.conv2d, aten.conv3d)


def _of_what_is_left(
    node: Node, values: Mapping[str, Any], found: Survey, left: Left, thinner: Mapping[str, Thinner]
) -> Thin | None:
    """A layer without the products whose factor reads zero and the sums that will; None where there are none, or it is
    no such layer. The value that is read holds zeros in the places of removed neurons."""
    if node.op not in _PLAIN_LAYERS:
        return None
    given = arguments(node)
    x, weight, bias = (given.get(name) for name in ("input", "weight", "bias"))
    if not (isinstance(x, Ref) and isinstance(weight, Ref)) or given.get("groups", 1) != 1:
        return None
    x_labels, w_labels = found.labels.get(x.node), found.labels.get(weight.node)
    value, w_oi = values[x.node], whole(values[weight.node])
    if x_labels is None or w_labels is None or len(_rest(value).shape) != len(x_labels):
        return None
    channels = len(x_labels) - len(w_labels) + 1
    reads, makes = left(w_labels[1]), left(w_labels[0])
    if (reads is None and makes is None) or len(x_labels[channels]) != len(w_labels[1]):
        return None
    dims = found.labels.get(node.name)
    if dims is None or len(dims[channels]) != len(w_labels[0]):
        return None
    if not _same(left(x_labels[channels]), reads) or not _same(left(dims[channels]), makes):
        return None
    inputs, outputs = (
        _all(places, labels) for places, labels in ((reads, w_labels[1]), (makes, w_labels[0]))
    )
    part = thinner.get(weight.node)
    if part is not None and part.kept.keys() <= {0, 1} and all(map(part.is_of, (0, 1), (outputs, inputs))):
        w_left = part.tensor.detach()
    else:
        w_left = taken(taken(w_oi, 0, makes), 1, reads)
    held = isinstance(value, Thin) and value.dim == channels
    values_left = {x.node: value.rest if held else taken(whole(value), channels, reads), weight.node: w_left}
    if isinstance(bias, Ref):
        values_left[bias.node] = taken(whole(values[bias.node]), 0, makes)
    assert node.op is not None
    result: Tensor = node.op(
        *filled(node.args, values_left.__getitem__), **filled(dict(node.kwargs), values_left.__getitem__)
    )
    return Thin(result, channels, outputs, len(w_labels[0]))


def _rest(value: Tensor | Thin) -> Tensor:
    return value.rest if isinstance(value, Thin) else value


def _same(one: NDArray[np.intp] | None, other: NDArray[np.intp] | None) -> bool:
    """Whether places that stay are the same; None is all."""
    return one is other or (one is not None and other is not None and np.array_equal(one, other))


def _all(places: NDArray[np.intp] | None, labels: Labels) -> NDArray[np.intp]:
    return np.arange(len(labels)) if places is None else places


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
    node: Node, values: Mapping[str, Any], dims: Dims, found: Survey, left: Left
) -> Tensor | Thin:
    def kept(name: str) -> Any:
        value = values[name]
        if isinstance(value, Thin):
            return value.rest
        for dim, labels in enumerate(found.labels.get(name, ())):
            value = taken(value, dim, left(labels))
        return value

    args, kwargs = filled(node.args, kept), filled(dict(node.kwargs), kept)
    if node.op in (aten.layer_norm, aten.rms_norm):
        args[1] = list(args[0].shape[-len(args[1]) :])
    assert node.op is not None
    result: Tensor = node.op(*args, **kwargs)
    lost = [
        (dim, places, len(labels)) for dim, labels in enumerate(dims) if (places := left(labels)) is not None
    ]
    if len(lost) == 1:
        return Thin(result, *lost[0])
    for dim, places, width in lost:
        result = Thin(result, dim, places, width).whole()
    return result
