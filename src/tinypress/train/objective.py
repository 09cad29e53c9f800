"""What is learnt: a function of the network and a batch, which the loop knows nothing else about."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tinypress.errors import DataError, InputError, TinypressError
from tinypress.task import Split
from tinypress.train.processes import Processes

Objective = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]


def supervised(loss: Callable[[Tensor, Tensor], Tensor]) -> Objective:
    """The objective of plain training: the loss between the network's outputs and the targets."""
    return lambda model, inputs, targets: loss(model(*inputs), targets)


@torch.no_grad()
def mean_objective(
    model: nn.Module,
    split: Split,
    objective: Objective,
    batch_size: int = 512,
    processes: Processes | None = None,
) -> float:
    """The objective averaged over the samples of ``split``, in evaluation mode.

    With ``processes`` each takes its share of the batches, and all get the mean over all.
    """
    model.eval()
    call = f"mean_objective({type(model).__name__}, {len(split)} samples)"
    rank, count = (processes.rank, processes.count) if processes is not None else (0, 1)
    total = 0.0
    for start in range(rank * batch_size, len(split), count * batch_size):
        part = on_device(split.take(slice(start, start + batch_size)), model)
        total += float(evaluate(call, objective, model, part)) * len(part)
    if processes is not None and count > 1:
        total = float(processes.add(torch.tensor([total], dtype=torch.float64)))
    return total / len(split)


def on_device(part: Split, model: nn.Module) -> Split:
    """``part`` on the device of the network's first parameter; itself where it is there already."""
    first = next(model.parameters(), None)
    if first is None or first.device == part.targets.device:
        return part
    groups = None if part.groups is None else part.groups.to(first.device)
    return Split(tuple(x.to(first.device) for x in part.inputs), part.targets.to(first.device), groups)


def evaluate(call: str, objective: Objective, model: nn.Module, part: Split) -> Tensor:
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
