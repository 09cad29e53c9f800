"""Wanda: a weight is worth its magnitude times the norm of what it is multiplied with.

Axes: O outputs, I inputs, K places of a kernel.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from tinypress.errors import DataError, InputError, ModelError
from tinypress.facts import Change, Compressed, Note
from tinypress.prune.pattern import KeepNOfM, parse_pattern, prune_to_pattern
from tinypress.prune.sparsity import count_to_prune, zero_fraction
from tinypress.prune.swap import copy_with, flat_of
from tinypress.prune.threshold import require_finite
from tinypress.prune.weights import layer_of, prunable_weights


def prune_model_by_wanda(
    model: nn.Module,
    sparsity: float,
    calibration: tuple[Tensor, ...],
    *,
    pattern: str | None = None,
    layers: Sequence[str] | None = None,
    batch_size: int = 64,
) -> Compressed:
    """A copy of ``model`` pruned by Wanda (Sun et al. 2024, arXiv:2306.11695, eq. 1 and algorithm 1).

    S_ij = |W_ij| ‖X_j‖₂, with X_j input j over all calibration samples (and places), and of each output's own weights
    round(sparsity * their number) with the smallest S go. Layers are pruned in the order in which they run, each on
    the inputs that the pruned layers before it give.

    Args:
        calibration: one tensor [N, ...] per argument of the network.
        pattern: ``N:M``, with its own sparsity, instead of a share of each output's weights.
        layers: as in ``prune_model_by_magnitude``.

    Returns:
        The network; the sparsity of each layer; notes on weights that were left alone: TP111, TP112, and TP113 for
        those whose inputs are not seen (recurrent, attention, layers that did not run).

    Raises:
        InputError: ``sparsity``, ``pattern`` or a name is wrong.
        DataError: there is no calibration sample.
        ModelError: nothing can be pruned, or weights or inputs are NaN or infinite.
    """
    call = f"prune_model_by_wanda({type(model).__name__}, sparsity={sparsity!r}, pattern={pattern!r})"
    if not isinstance(model, nn.Module):
        raise InputError(call, "model is not a torch.nn.Module", "Give the network itself")
    count_to_prune(call, sparsity, 0)
    if not calibration or len(calibration[0]) == 0:
        raise DataError(call, "there is no calibration sample", "Give one tensor per argument, such as (x,)")
    kind = None if pattern is None else parse_pattern(pattern)
    if kind is not None and not isinstance(kind, KeepNOfM):
        raise InputError(call, "Wanda compares the weights of one output", "Give N:M, or no pattern")
    weights, left = prunable_weights(call, model, layers)
    notes = list(left)
    for name, parameter in weights.items():
        require_finite(call, {name: flat_of(parameter)})
    work = copy.deepcopy(model).eval()
    seen = {name: work.get_submodule(layer) for name in weights if (layer := _layer(work, name)) is not None}
    order = _order_of_running(work, seen, calibration)
    notes += [
        Note(
            "TP113", "warning", layer_of(name), f"{name} was not pruned: the inputs of its layer are not seen"
        )
        for name in weights
        if name not in order
    ]
    flats: dict[str, Tensor] = {}
    for name in order:
        norms = input_norms(call, work, seen[name], calibration, batch_size)
        live = seen[name].get_parameter("weight")
        scores = live.detach().cpu().abs().double() * norms
        if kind is None:
            gone = _smallest_of_each_output(call, seen[name], scores, sparsity)
        else:
            fits, more = _by_pattern(call, work, name, scores, sparsity, kind)
            notes += more
            if fits is None:
                continue
            gone = fits
        flats[name] = flat_of(weights[name]).masked_fill(gone.reshape(-1), 0.0)
        live.detach().masked_fill_(gone.to(live.device), 0.0)
    if not flats:
        raise ModelError(call, "no layer could be pruned", "Name linear or convolutional layers that run")
    changes = tuple(
        Change(layer_of(name), "sparsity", zero_fraction(weights[name]), zero_fraction(flat))
        for name, flat in flats.items()
    )
    pruned = copy_with(call, model, {weights[name]: flat for name, flat in flats.items()})
    return Compressed(pruned, changes, tuple(notes), frozenset(flats))


def _layer(model: nn.Module, name: str) -> str | None:
    """The path of the linear or convolutional layer whose ``weight`` this is."""
    path, _, leaf = name.rpartition(".")
    layer = model.get_submodule(path)
    known = isinstance(layer, nn.Linear | _ConvNd) and leaf == "weight"
    return path if known else None


def _order_of_running(
    model: nn.Module, layers: Mapping[str, nn.Module], inputs: tuple[Tensor, ...]
) -> list[str]:
    order: dict[str, None] = {}
    removers = [
        layer.register_forward_pre_hook(lambda module, given, name=name: order.setdefault(name))
        for name, layer in layers.items()
    ]
    try:
        _run(model, tuple(x[:2] for x in inputs))
    finally:
        for remover in removers:
            remover.remove()
    return list(order)


@torch.no_grad()
def _run(model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    device = next(model.parameters()).device
    model(*(x.to(device) for x in inputs))


def input_norms(
    call: str, model: nn.Module, layer: nn.Module, inputs: tuple[Tensor, ...], batch_size: int
) -> Tensor:
    """‖X‖₂ of what each weight of ``layer`` is multiplied with, float64 of the weight's shape.

    The layer is linear in its weight, so that the derivative of its summed output on squared inputs is Σ x² for each.

    Raises:
        ModelError: an input is NaN or infinite.
    """
    twin = copy.deepcopy(layer)
    weight = twin.get_parameter("weight").requires_grad_()
    total = torch.zeros(weight.shape, dtype=torch.float64)

    def see(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        with torch.enable_grad():
            out: Tensor = twin(given[0].detach().square())
            (squares,) = torch.autograd.grad(out.sum(), weight)
        total.add_(squares.cpu())

    remover = layer.register_forward_pre_hook(see)
    try:
        for start in range(0, len(inputs[0]), batch_size):
            _run(model, tuple(x[start : start + batch_size] for x in inputs))
    finally:
        remover.remove()
    if not bool(torch.isfinite(total).all()):
        raise ModelError(call, "an input of a layer is NaN or infinite", "Check the calibration data")
    return total.sqrt()


def _smallest_of_each_output(call: str, layer: nn.Module, scores: Tensor, sparsity: float) -> Tensor:
    transposed = isinstance(layer, _ConvTransposeNd)
    rows = scores.transpose(0, 1) if transposed else scores
    matrix = rows.reshape(len(rows), -1)
    count = count_to_prune(call, sparsity, matrix.shape[1])
    smallest = matrix.sort(dim=1, stable=True).indices[:, :count]
    gone = torch.zeros_like(matrix, dtype=torch.bool).scatter_(1, smallest, True).view(rows.shape)
    return gone.transpose(0, 1).contiguous() if transposed else gone


def _by_pattern(
    call: str, model: nn.Module, name: str, scores: Tensor, sparsity: float, kind: KeepNOfM
) -> tuple[Tensor | None, tuple[Note, ...]]:
    if scores.shape[0 if isinstance(_owner(model, name), _ConvTransposeNd) else 1] % kind.m:
        text = f"{name} was not pruned: its inputs are no whole number of {kind} groups"
        return None, (Note("TP112", "warning", layer_of(name), text),)
    gone, notes = prune_to_pattern(call, model, {name: scores}, sparsity, kind, False)
    return gone[name], notes


def _owner(model: nn.Module, name: str) -> nn.Module:
    return model.get_submodule(name.rpartition(".")[0])
