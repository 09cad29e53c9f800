"""How much each neuron matters: from its incoming weights, from its activations, or, as a control, by lot.

Norms of whole filters as a measure: Li et al., "Pruning Filters for Efficient ConvNets" (2017), section 3.1.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from tinypress.errors import InputError, ModelError
from tinypress.shrink.groups import Group, has_neurons, neuron_dim

Importance = Literal["l1", "l2", "variance", "activation", "random"]
METHODS: tuple[str, ...] = get_args(Importance)


def check_method(call: str, method: object, methods: tuple[str, ...] = METHODS) -> None:
    """Raises InputError, naming the nearest one, where ``method`` is none of ``methods``."""
    if method in methods:
        return
    near = difflib.get_close_matches(str(method), methods, 1)
    raise InputError(
        call,
        f"there is no importance {method!r}",
        (f"Did you mean {near[0]!r}? " if near else "") + f"Choose one of {', '.join(methods)}",
    )


def compute_neuron_importance(
    layer: nn.Module,
    method: Importance = "l2",
    *,
    activations: Tensor | None = None,
    seed: int = 0,
) -> Tensor:
    """The importance of each output neuron of ``layer``; a smaller one leaves first.

    With w [out, ...] the weights that come into a neuron, flattened to n values per neuron:
    ``l1`` is sum |w|, ``l2`` is sqrt(sum w^2), ``variance`` is sum (w - mean w)^2 / n. The bias is not
    counted. ``activation`` is the mean of |a| over batch and positions, ``random`` a uniform number.

    Args:
        layer: a linear layer or a convolution with ``out`` neurons.
        method: one of the above.
        activations: [N, out, ...], what the layer put out on N samples; only for ``activation``.
        seed: of the ``random`` numbers.

    Returns:
        A tensor [out] of the weight's dtype.

    Raises:
        InputError: an unknown method; no activations, or activations of another width.
        ModelError: a layer without neurons of its own, or importances that are NaN or infinite.
    """
    call = f"compute_neuron_importance({type(layer).__name__}, {method!r})"
    check_method(call, method)
    weight = getattr(layer, "weight", None)
    if not has_neurons(layer) or not isinstance(weight, Tensor):
        raise ModelError(call, "the layer has no output neurons", "Give a linear layer or a convolution")
    w_oi = weight.detach().transpose(0, neuron_dim(layer)).flatten(1).double()
    if method == "activation":
        importance = _activity(call, activations, len(w_oi))
    elif method == "random":
        importance = torch.rand(len(w_oi), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    elif method == "variance":
        importance = w_oi.var(dim=1, correction=0)
    else:
        importance = torch.linalg.vector_norm(w_oi, ord=1 if method == "l1" else 2, dim=1)
    if not bool(torch.isfinite(importance).all()):
        at = int((~torch.isfinite(importance)).nonzero()[0])
        raise ModelError(
            call,
            f"the importance of neuron {at} is {float(importance[at])}",
            "Load the weights of a training that did not diverge, and clean the calibration samples",
        )
    return importance.to(weight.dtype)


def _activity(call: str, activations: Tensor | None, width: int) -> Tensor:
    if activations is None:
        raise InputError(
            call,
            "the importance 'activation' needs activations and there are none",
            "Give activations=[N, out, ...], or calibration=(inputs,) when pruning; or choose 'l2'",
        )
    if activations.dim() < 2 or activations.shape[1] != width or activations.numel() == 0:
        raise InputError(
            call,
            f"activations have shape {tuple(activations.shape)} but the layer has {width} neurons",
            f"Give activations of shape [N, {width}, ...], what the layer put out on N samples",
        )
    return activations.detach().double().abs().transpose(0, 1).flatten(1).mean(dim=1)


def group_importance(
    model: nn.Module, group: Group, method: Importance, activations: Mapping[str, Tensor], seed: int
) -> Tensor:
    """The importance of each neuron of a group, [width], float64.

    A single producer's importance is taken as it is. Where several producers are tied, each one's is divided
    by its mean, so that a layer with large weights does not outvote the others, and then they are summed.
    """
    total = torch.zeros(group.width, dtype=torch.float64)
    named = dict(model.named_parameters())
    for tensor, dim in group.sources:
        path = tensor.rpartition(".")[0]
        layer = model.get_submodule(path)
        if has_neurons(layer) and tensor.endswith("weight"):
            each = compute_neuron_importance(layer, method, activations=activations.get(path), seed=seed)
        else:  # the table of an embedding, the gates of an LSTM, a matrix of the user's own
            rows = named[tensor].detach().movedim(dim, 0).flatten(1)
            each = compute_neuron_importance(_linear_of(rows), method, seed=seed)
        each = each.double().cpu()
        if len(group.sources) > 1 and float(each.mean()) > 0:
            each = each / each.mean()
        places = group.slice_of(tensor, dim)
        assert places is not None
        total.index_add_(0, torch.from_numpy(places.units), each[torch.from_numpy(places.at)])
    return total


def _linear_of(rows: Tensor) -> nn.Linear:
    """A linear layer with these weights, whose neurons are scored as those of any other."""
    layer = nn.Linear(rows.shape[1], len(rows), bias=False, device="meta")
    layer.weight = nn.Parameter(rows, requires_grad=False)
    return layer


def least_important(group: Group, importance: Tensor, ratio: float) -> tuple[int, ...]:
    """The round(ratio * width) neurons to remove, in ascending order of their index.

    Among equal ones the earlier index goes first. No layer is emptied: a neuron that is the last of any
    tensor's is passed over.
    """
    count = min(round(ratio * group.width), group.width - 1)
    has = [s.counts > 0 for s in group.slices]
    left = [int(each.sum()) for each in has]
    removed: list[int] = []
    for unit in torch.argsort(importance, stable=True).tolist():
        if len(removed) == count:
            break
        used = [i for i, each in enumerate(has) if each[unit]]
        if all(left[i] > 1 for i in used):
            removed.append(unit)
            for i in used:
                left[i] -= 1
    return tuple(sorted(removed))
