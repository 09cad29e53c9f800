"""Sparsity that grows while the network trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from tinypress.errors import InputError
from tinypress.facts import Change, Compressed
from tinypress.prune.allocation import Allocation
from tinypress.prune.keep import keep_zeros
from tinypress.prune.model import prune_model_by_magnitude
from tinypress.prune.sparsity import count_to_prune, zero_fraction
from tinypress.prune.weights import layer_of, prunable_weights
from tinypress.task import Split
from tinypress.train.checkpoint import Checkpoint
from tinypress.train.hooks import Hook, MakeHook
from tinypress.train.loop import Objective, Progress, Schedule, fit, silent
from tinypress.train.processes import Processes


def cubic_sparsity(step: int, begin: int, end: int, initial: float, final: float) -> float:
    """The sparsity at ``step`` of gradual pruning (Zhu and Gupta 2017, arXiv:1710.01878, eq. 1).

    s_t = s_f + (s_i - s_f) (1 - (t - t_0) / (n Δt))³ from t_0 = ``begin`` to t_0 + n Δt = ``end``: fast while many
    weights are left over, and slow towards the end. ``initial`` before, ``final`` after.
    """
    if step >= end:
        return final
    share = max(0.0, (step - begin) / (end - begin))
    return final + (initial - final) * (1 - share) ** 3


def gradual_pruning(
    sparsity: float,
    *,
    initial: float = 0.0,
    begin: float = 0.0,
    end: float = 0.5,
    every: int = 10,
    scope: Literal["global", "layer"] = "global",
    allocation: Allocation | None = None,
    layers: Sequence[str] | None = None,
) -> MakeHook:
    """A hook for ``fit`` that prunes by magnitude while the network trains, along ``cubic_sparsity``.

    Every ``every`` steps and at the end the smallest weights of the moment go. What is zero stays zero after every
    step. Only epochs after the end count for the best weights.

    Args:
        sparsity: in the end; ``initial`` at the start (zeros that are there already count).
        begin, end: shares 0..1 of the training's steps between which the sparsity grows.
        scope, allocation, layers: as in ``prune_model_by_magnitude``.

    Raises:
        InputError: a setting is out of range; when the training begins, also a wrong name.
    """
    call = (
        f"gradual_pruning({sparsity!r}, initial={initial!r}, begin={begin!r}, end={end!r}, every={every!r})"
    )
    count_to_prune(call, sparsity, 0)
    count_to_prune(call, initial, 0)
    if not 0 <= begin < end <= 1 or initial > sparsity:
        raise InputError(
            call,
            "begin, end and the sparsities do not grow",
            "Give 0 <= begin < end <= 1, initial <= sparsity",
        )
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise InputError(call, f"every is {every!r}", "Give a number of steps from 1")

    def make(model: nn.Module, total: int) -> Hook:
        first = round(begin * total)
        last = max(first + 1, round(end * total))
        weights, _ = prunable_weights(call, model, layers)
        masks = {name: x.detach() != 0 for name, x in weights.items()}

        def after(step: int) -> None:
            with torch.no_grad():
                for name, parameter in weights.items():
                    parameter.masked_fill_(~masks[name], 0.0)
                if step == last or (first <= step < last and (step - first) % every == 0):
                    now = cubic_sparsity(step, first, last, initial, sparsity)
                    pruned = prune_model_by_magnitude(
                        model, now, scope=scope, allocation=allocation, layers=layers
                    )
                    for name, parameter in weights.items():
                        masks[name].copy_(pruned.model.get_parameter(name) != 0)
                        parameter.masked_fill_(~masks[name], 0.0)

        return Hook(after, state=masks, settled=last)

    return make


def prune_gradually(
    network: nn.Module | Compressed,
    train: Split,
    validation: Split,
    objective: Objective,
    schedule: Schedule,
    sparsity: float,
    *,
    end: float = 0.5,
    every: int = 10,
    scope: Literal["global", "layer"] = "global",
    allocation: Allocation | None = None,
    checkpoint: Checkpoint | None = None,
    processes: Processes | None = None,
    progress: Progress = silent,
) -> Compressed:
    """Train a copy of ``network`` by ``fit`` while ``gradual_pruning`` brings it to ``sparsity``.

    What is zero at the start stays zero.

    Returns:
        The network; the sparsity of each layer before and after, and the steps taken; notes on matrices that were
        left alone (TP111).

    Raises:
        InputError: a setting is out of range.
        ModelError: there is nothing to prune, or the loss became NaN.
    """
    before = network if isinstance(network, Compressed) else Compressed(network)
    call = f"prune_gradually({type(before.model).__name__}, sparsity={sparsity!r})"
    weights, notes = prunable_weights(call, before.model, None)
    fitted = fit(
        before.model,
        train,
        validation,
        objective,
        schedule,
        after_step=lambda model: keep_zeros(model, before.pruned),
        hooks=[gradual_pruning(sparsity, end=end, every=every, scope=scope, allocation=allocation)],
        checkpoint=checkpoint,
        processes=processes,
        progress=progress,
        what="pruning gradually",
    )
    changes = [
        Change(
            layer_of(name), "sparsity", zero_fraction(was), zero_fraction(fitted.model.get_parameter(name))
        )
        for name, was in weights.items()
    ]
    return Compressed(
        fitted.model,
        (*before.changes, *changes, Change("", "training steps", 0, fitted.steps)),
        (*before.notes, *notes),
        before.pruned | frozenset(weights),
        before.plan,
    )
