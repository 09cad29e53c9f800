"""The training loop. What is learnt is an ``Objective``; what must hold after each step is a hook."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from tinypress.errors import DataError, InputError, ModelError, TinypressError
from tinypress.task import Split

Objective = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]


class Progress(Protocol):
    """Told how far a piece of work is: ``done`` of ``total`` steps of ``what``."""

    def __call__(self, what: str, done: int, total: int) -> None: ...


def silent(what: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Schedule:
    """AdamW with a cosine learning rate over ``epochs``; ``patience`` ends it early when validation stalls."""

    epochs: int
    learning_rate: float
    batch_size: int = 64
    weight_decay: float = 1e-4
    patience: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Fitted:
    """A trained network with the epoch whose weights were kept and the optimizer steps that were taken."""

    model: nn.Module
    best_epoch: int
    epochs: int
    steps: int


def supervised(loss: Callable[[Tensor, Tensor], Tensor]) -> Objective:
    """The objective of plain training: the loss between the network's outputs and the targets."""
    return lambda model, inputs, targets: loss(model(*inputs), targets)


def fit(
    model: nn.Module,
    train: Split,
    validation: Split,
    objective: Objective,
    schedule: Schedule,
    *,
    after_step: Callable[[nn.Module], Callable[[], None]] | None = None,
    progress: Progress = silent,
    what: str = "training",
) -> Fitted:
    """Train a copy of ``model`` and return it with the weights of its best epoch on validation.

    Equal arguments, thread count and starting weights give bit-equal results: batches, dropout and
    initial noise come from ``schedule.seed`` alone, and the caller's random state is left as it was.

    Args:
        after_step: given the network, returns what is called after every optimizer step (keeping zeros zero).

    Raises:
        ModelError: the loss became NaN or infinite (the step is named), or nothing in the network can be trained.
    """
    call = f"fit({type(model).__name__}, {len(train)} samples, {schedule})"
    if schedule.epochs < 1 or schedule.batch_size < 1 or not schedule.learning_rate > 0:
        raise InputError(
            call, "epochs, batch_size and learning_rate must be positive", "Give positive values"
        )
    if len(train) < 2:
        raise DataError(call, "one sample cannot be trained on", "Give at least two")
    model = copy.deepcopy(model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ModelError(call, "no parameter requires a gradient", "Unfreeze at least one")
    keep = after_step(model) if after_step is not None else None
    optimizer = torch.optim.AdamW(
        parameters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay, foreach=True
    )
    # a last batch of one sample would break batch norm in training
    batches = max(1, math.ceil(len(train) / schedule.batch_size) - (len(train) % schedule.batch_size == 1))
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, schedule.epochs * batches)
    order = torch.Generator().manual_seed(schedule.seed)
    best, best_epoch, best_state = math.inf, 0, copy.deepcopy(model.state_dict())
    epoch = 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(schedule.seed)
        for epoch in range(1, schedule.epochs + 1):
            model.train()
            rows = torch.randperm(len(train), generator=order)
            for batch in range(batches):
                part = train.take(rows[batch * schedule.batch_size : (batch + 1) * schedule.batch_size])
                loss = _loss(call, objective, model, part)
                if not bool(torch.isfinite(loss)):
                    raise ModelError(
                        call,
                        f"the loss is {loss.item()} at step {batch + 1} of epoch {epoch}",
                        "Lower the learning rate or check the data for outliers",
                    )
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(parameters, 5.0)
                optimizer.step()
                cosine.step()
                if keep is not None:
                    keep()
            value = mean_objective(model, validation, objective)
            if value < best:
                best, best_epoch, best_state = value, epoch, copy.deepcopy(model.state_dict())
            progress(what, epoch, schedule.epochs)
            if schedule.patience is not None and epoch - best_epoch >= schedule.patience:
                break
    model.load_state_dict(best_state)
    model.eval()
    return Fitted(model, best_epoch, epoch, epoch * batches)


@torch.no_grad()
def mean_objective(model: nn.Module, split: Split, objective: Objective, batch_size: int = 512) -> float:
    """The objective averaged over the samples of ``split``, in evaluation mode."""
    model.eval()
    call = f"mean_objective({type(model).__name__}, {len(split)} samples)"
    total = 0.0
    for start in range(0, len(split), batch_size):
        part = split.take(slice(start, start + batch_size))
        total += float(_loss(call, objective, model, part)) * len(part)
    return total / len(split)


def _loss(call: str, objective: Objective, model: nn.Module, part: Split) -> Tensor:
    """The objective on ``part``; what the user's loss raises on labels out of range or of another kind is explained."""
    try:
        loss: object = objective(model, part.inputs, part.targets)
    except TinypressError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines()
        raise DataError(
            call,
            f"the loss failed on {len(part)} samples with {part.targets.dtype} targets of shape "
            f"{tuple(part.targets.shape)} ({type(error).__name__}: {lines[0] if lines else 'no message'})",
            "Check the targets (class indices are whole numbers from 0) and the task's loss",
        ) from error
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        given = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        raise InputError(
            call, f"the loss returned {given}", "Return a tensor with one number, such as the mean"
        )
    return loss
