"""One process or several that train one network together: each takes its share of every batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tinypress.errors import InputError, MissingExtra


@dataclass(frozen=True)
class Processes:
    """This process among ``count`` that do the same work; ``rank`` 0 writes the files.

    ``add(x)`` is the sum of everybody's ``x``, ``gather(x)`` [count, ...] holds them all, ``wait()`` returns when
    all have come. All must call them in the same order.
    """

    rank: int
    count: int
    device: torch.device
    add: Callable[[Tensor], Tensor]
    gather: Callable[[Tensor], Tensor]
    wait: Callable[[], None]


def accelerated(*, cpu: bool = False) -> Processes:
    """The processes that ``accelerate launch`` or ``torchrun`` started, each with its own device.

    Without a launcher it is one process on the best device there is. A training in several processes follows the
    one in a single process at the same (global) batch size: every process takes every ``count``-th sample of a
    batch, and gradients are summed with the weights that make them the mean over the whole batch. Sums in another
    order differ in the last bits. What looks at several samples at once sees its own process's only: batch norm, and
    losses of relations or contrasts within the batch.

    Args:
        cpu: stay on the processor where there is a GPU.

    Raises:
        MissingExtra: Hugging Face Accelerate is not installed.
    """
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise MissingExtra(
            "accelerated()", "Hugging Face Accelerate is not installed", "pip install 'tinypress[accelerate]'"
        ) from error
    accelerator = Accelerator(cpu=cpu)
    device = accelerator.device

    def add(values: Tensor) -> Tensor:
        reduced: Tensor = accelerator.reduce(values.to(device), reduction="sum")
        return reduced.to(values.device)

    def gather(values: Tensor) -> Tensor:
        gathered: Tensor = accelerator.gather(values.to(device).unsqueeze(0))
        return gathered.to(values.device)

    return Processes(
        accelerator.process_index,
        accelerator.num_processes,
        device,
        add,
        gather,
        accelerator.wait_for_everyone,
    )


def one_process(device: torch.device | str) -> Processes:
    """This process by itself, on ``device``: what trains on one GPU.

    Raises:
        InputError: torch knows no such device, or does not see it on this machine.
    """
    call = f"one_process({str(device)!r})"
    try:
        wanted = torch.device(device)
        torch.empty(1, device=wanted)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            call, f"torch cannot use it here ({reason})", "Give 'cpu', or 'cuda' where torch sees a GPU"
        ) from error
    if wanted.type == "meta":
        raise InputError(call, "it holds no values", "Give 'cpu', or 'cuda' where torch sees a GPU")
    return Processes(0, 1, wanted, lambda x: x, lambda x: x.unsqueeze(0), lambda: None)


def add_gradients(parameters: Sequence[nn.Parameter], processes: Processes) -> None:
    """Replace every gradient by the sum over the processes, in one exchange a dtype.

    A parameter without a gradient here may have one elsewhere, so that all take part with zeros.
    """
    for dtype in dict.fromkeys(parameter.dtype for parameter in parameters):
        alike = [parameter for parameter in parameters if parameter.dtype == dtype]
        flat = torch.cat([_gradient(parameter).reshape(-1) for parameter in alike])
        total = processes.add(flat)
        parts = torch.split(total, [parameter.numel() for parameter in alike])
        for parameter, part in zip(alike, parts, strict=True):
            parameter.grad = part.view(parameter.shape).clone()


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.detach()


@torch.no_grad()
def average_buffers(model: nn.Module, processes: Processes) -> None:
    """Bring the floating-point buffers of all processes, such as running means, to their mean."""
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.copy_(processes.add(buffer) / processes.count)
