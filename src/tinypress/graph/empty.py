"""A network and its inputs on the meta device, where tensors have shapes and no values."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tinypress.graph.traced import Kind
from tinypress.layers import copy_model, named_tensors

META = torch.device("meta")


class Refused(Exception):
    """The network cannot be recorded."""


def emptied(
    model: nn.Module, inputs: tuple[Tensor, ...]
) -> tuple[nn.Module, torch.device, tuple[tuple[Kind, str, Tensor], ...]]:
    """A copy of ``model`` in eval mode without values, the device where its values and ``inputs`` are, and its tensors
    by kind and name.

    Raises:
        Refused: a tensor has no place on the meta device, or they are on several devices.
    """
    empty: dict[Tensor, Tensor] = {}
    tensors: list[tuple[Kind, str, Tensor]] = []
    devices = {x.device for x in inputs}
    for kind, name, tensor in tensors_by_kind(model):
        if type(tensor) not in (Tensor, nn.Parameter) or tensor.layout != torch.strided:
            raise Refused
        devices.add(tensor.device)
        made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=META)
        empty[tensor] = nn.Parameter(made, requires_grad=False) if isinstance(tensor, nn.Parameter) else made
        tensors.append((kind, name, empty[tensor]))
    if len(devices) != 1:
        raise Refused
    network = copy_model(model, instead=empty).eval()
    return network, devices.pop(), tuple(tensors)


def tensors_by_kind(model: nn.Module) -> list[tuple[Kind, str, Tensor]]:
    """Every parameter, then every buffer, with its name."""
    parameters, buffers = named_tensors(model)
    found: list[tuple[Kind, str, Tensor]] = [("parameter", name, x) for name, x in parameters.items()]
    return found + [("buffer", name, x) for name, x in buffers.items()]


def stand_in(x: Tensor, batch: int) -> Tensor:
    """``x`` without values, of ``batch`` samples."""
    return torch.empty((batch, *x.shape[1:]) if x.dim() else (), dtype=x.dtype, device=META)


_ONE_AT_A_TIME = threading.RLock()  # torch's flags are those of all threads


@contextmanager
def as_exporting() -> Iterator[None]:
    """Networks that ask whether they are being compiled take the branches that they take under ``torch.export``."""
    flags = ("_is_compiling_flag", "_is_exporting_flag")
    with _ONE_AT_A_TIME:
        fast, before = torch.backends.mha.get_fastpath_enabled(), [getattr(torch.compiler, f) for f in flags]
        try:
            # one operation for a whole layer says nothing of what is in it
            torch.backends.mha.set_fastpath_enabled(False)
            for flag in flags:
                setattr(torch.compiler, flag, True)
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
            for flag, value in zip(flags, before, strict=True):
                setattr(torch.compiler, flag, value)
