"""Batch norm's running means and variances, computed again from data once the weights before them have changed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tinypress.errors import InputError
from tinypress.facts import Change, Compressed, Note
from tinypress.task import Split
from tinypress.train.objective import on_device


class _Moments:
    """Sums over all values that a batch norm met, a channel each, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.sum: Tensor | None = None
        self.squares: Tensor | None = None

    def see(self, values: Tensor) -> None:
        rows = values.detach().to(torch.float64).transpose(0, 1).flatten(1)
        total, squares = rows.sum(1), rows.square().sum(1)
        self.count += rows.shape[1]
        self.sum = total if self.sum is None else self.sum + total
        self.squares = squares if self.squares is None else self.squares + squares


@torch.no_grad()
def reestimate_batch_norm(
    network: nn.Module | Compressed, split: Split, *, batch_size: int = 64
) -> Compressed:
    """A copy of ``network`` whose batch norms hold the moments of ``split`` as running mean and variance.

    Every batch norm normalises by its batch while the data pass, as in training, and everything else is in
    evaluation mode. The moments are those of all values together: μ = E[μ_B], σ² = E[μ_B² + σ_B²] - μ², with the
    unbiased variance that PyTorch keeps (Wu and Johnson, "Rethinking 'Batch' in BatchNorm" 2021, section 3, precise
    batch norm). A last batch of one sample joins the one before it.

    Returns:
        The network, a change for each batch norm, and a note (TP611) where there is none that keeps moments.

    Raises:
        InputError: ``batch_size`` is below 2, or there is one sample only.
    """
    before = network if isinstance(network, Compressed) else Compressed(network)
    call = f"reestimate_batch_norm({type(before.model).__name__}, {len(split)} samples, batch_size={batch_size!r})"
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 2 or len(split) < 2:
        raise InputError(call, "a batch norm needs two samples in a batch", "Give a batch_size of 2 or more")
    model = copy.deepcopy(before.model).eval()
    norms = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }
    if not norms:
        note = Note(
            "TP611", "note", None, "there is no batch norm with running moments: nothing was estimated"
        )
        return replace(before, model=model, notes=(*before.notes, note))
    moments = {name: _Moments() for name in norms}
    removers = [norm.register_forward_pre_hook(_seeing(moments[name])) for name, norm in norms.items()]
    was = {name: _mean_of(norm) for name, norm in norms.items()}
    for norm in norms.values():
        norm.train()
    with torch.random.fork_rng(devices=[]):
        for start in range(0, len(split), batch_size):
            left = len(split) - start
            if left == 1:
                break  # taken with the batch before
            size = batch_size + 1 if left == batch_size + 1 else batch_size
            model(*on_device(split.take(slice(start, start + size)), model).inputs)
    for remover in removers:
        remover.remove()
    changes = []
    for name, norm in norms.items():
        seen = moments[name]
        if seen.sum is not None and seen.squares is not None and seen.count > 1:
            _keep(norm, seen.sum, seen.squares, seen.count)
            changes.append(Change(name, "mean of the running means", was[name], _mean_of(norm)))
    model.eval()
    return replace(before, model=model, changes=(*before.changes, *changes))


def _seeing(moments: _Moments) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    return lambda module, inputs: moments.see(inputs[0])


def _keep(norm: _BatchNorm, total: Tensor, squares: Tensor, count: int) -> None:
    mean = total / count
    variance = (squares / count - mean.square()).clamp_min(0) * count / (count - 1)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)


def _mean_of(norm: _BatchNorm) -> float:
    assert norm.running_mean is not None
    return float(norm.running_mean.mean())
