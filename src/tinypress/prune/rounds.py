"""Pruning and training in turns: iterative pruning, and lottery tickets that go back to early weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from tinypress.errors import InputError
from tinypress.facts import Change, Compressed
from tinypress.prune.allocation import Allocation
from tinypress.prune.keep import keep_zeros
from tinypress.prune.model import prune_model_by_magnitude
from tinypress.prune.sparsity import count_to_prune
from tinypress.task import Split
from tinypress.train.hooks import Hook, MakeHook
from tinypress.train.loop import Objective, Progress, Schedule, fit, silent


def sparsity_of_rounds(sparsity: float, rounds: int) -> tuple[float, ...]:
    """The sparsity after each round when all remove the same share of what is left: 1 - (1 - s)^(r / R).

    Han et al. 2015 prune so by hand, Frankle and Carbin 2019 (section 2) remove p^(1/n) in each of n rounds. The last
    is ``sparsity`` itself.

    Raises:
        InputError: ``rounds`` is below 1, or ``sparsity`` is no number from 0 to 1.
    """
    call = f"sparsity_of_rounds({sparsity!r}, {rounds!r})"
    count_to_prune(call, sparsity, 0)
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise InputError(call, f"rounds is {rounds!r}", "Give a whole number from 1")
    return (*(1 - (1 - sparsity) ** (r / rounds) for r in range(1, rounds)), sparsity)


def prune_in_rounds(
    model: nn.Module,
    sparsity: float,
    train: Callable[[Compressed], Compressed],
    *,
    rounds: int = 3,
    scope: Literal["global", "layer"] = "global",
    allocation: Allocation | None = None,
) -> Compressed:
    """Iterative pruning (Han et al. 2015, section 3): prune a little, train, prune more.

    Args:
        train: trains a copy of a pruned network and keeps its zeros, as ``train_with_distillation`` does.
        rounds: with 1 it is one-shot pruning.

    Raises:
        InputError: a setting is out of range.
    """
    current = Compressed(model)
    for now in sparsity_of_rounds(sparsity, rounds):
        pruned = prune_model_by_magnitude(current.model, now, scope=scope, allocation=allocation)
        current = train(
            Compressed(
                pruned.model,
                (*current.changes, *pruned.changes),
                pruned.notes,
                current.pruned | pruned.pruned,
            )
        )
    return current


def find_ticket(
    model: nn.Module,
    train: Split,
    validation: Split,
    objective: Objective,
    schedule: Schedule,
    sparsity: float,
    *,
    rounds: int = 5,
    rewind_to: int = 0,
    scope: Literal["global", "layer"] = "global",
    progress: Progress = silent,
) -> Compressed:
    """A lottery ticket: a sparse network that is trained from the weights of an early step.

    Frankle and Carbin 2019, arXiv:1803.03635: train, prune the smallest of the trained weights, set those that stay to
    what they were at the beginning, and train again; ``rounds`` times. ``rewind_to`` goes back to the weights after
    that step of the first training instead, and takes the remaining steps only (late rewinding, Frankle et al. 2020,
    arXiv:1912.05671, algorithm 2).

    Args:
        model: untrained; it is not changed.
        rewind_to: optimizer steps from 0 to below the steps of one training.

    Returns:
        The ticket, trained; the sparsity of each layer in each round.

    Raises:
        InputError: a setting is out of range.
        ModelError: the loss became NaN.
    """
    call = f"find_ticket({type(model).__name__}, {sparsity!r}, rounds={rounds!r}, rewind_to={rewind_to!r})"
    if isinstance(rewind_to, bool) or not isinstance(rewind_to, int) or rewind_to < 0:
        raise InputError(call, f"rewind_to is {rewind_to!r}", "Give a number of steps from 0")
    stages = sparsity_of_rounds(sparsity, rounds)
    early = copy.deepcopy(model)
    first = fit(
        model,
        train,
        validation,
        objective,
        schedule,
        hooks=[_catching(call, early, rewind_to)],
        progress=progress,
        what="training the dense network",
    )
    if first.steps < rewind_to:
        raise InputError(
            call, f"patience ended the training at step {first.steps}", "Go back to an earlier step"
        )
    current, changes = first.model, list[Change]()
    pruned = Compressed(first.model)
    for count, now in enumerate(stages, start=1):
        pruned = prune_model_by_magnitude(current, now, scope=scope)
        changes += pruned.changes
        ticket = _rewound(early, pruned)
        current = fit(
            ticket,
            train,
            validation,
            objective,
            schedule,
            after_step=_keeping(pruned.pruned),
            taken=rewind_to,
            progress=progress,
            what=f"training ticket {count} of {len(stages)}",
        ).model
    return Compressed(current, tuple(changes), pruned.notes, pruned.pruned)


def _catching(call: str, early: nn.Module, at: int) -> MakeHook:
    """Copies the weights after step ``at`` to ``early``."""

    def make(model: nn.Module, total: int) -> Hook:
        if at >= total:
            raise InputError(call, f"the training has {total} steps", "Go back to an earlier step")

        def after(step: int) -> None:
            if step == at:
                early.load_state_dict(model.state_dict())

        return Hook(after)

    return make


def _keeping(names: frozenset[str]) -> Callable[[nn.Module], Callable[[], None]]:
    return lambda model: keep_zeros(model, names)


def _rewound(early: nn.Module, pruned: Compressed) -> nn.Module:
    """``early`` with the zeros of ``pruned``."""
    ticket = copy.deepcopy(early)
    with torch.no_grad():
        for name in pruned.pruned:
            gone: Tensor = pruned.model.get_parameter(name) == 0
            ticket.get_parameter(name).masked_fill_(gone, 0.0)
    return ticket
