"""Copy a network with some of its parameters replaced, without copying those first."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tinypress.errors import ModelError


def flat_of(parameter: Tensor) -> Tensor:
    """All values of ``parameter`` in row-major order on the CPU; its own memory wherever that will do."""
    return parameter.detach().cpu().reshape(-1)


def copy_with(call: str, model: nn.Module, replaced: Mapping[nn.Parameter, Tensor]) -> nn.Module:
    """A copy of ``model`` in which each parameter of ``replaced`` holds the flat values given for it.

    Layers that share a parameter share the new one.

    Raises:
        ModelError: the network cannot be copied.
    """
    memo: dict[int, object] = {
        id(old): nn.Parameter(_shaped_like(old, flat), requires_grad=old.requires_grad)
        for old, flat in replaced.items()
    }
    try:
        return copy.deepcopy(model, memo)
    except (RuntimeError, TypeError) as error:
        raise ModelError(
            call,
            f"the network cannot be copied ({error})",
            "Remove what it keeps besides parameters and buffers, such as outputs of an earlier call",
        ) from error


def _shaped_like(old: Tensor, flat: Tensor) -> Tensor:
    new = flat.view(old.shape).to(device=old.device, dtype=old.dtype)
    if old.is_contiguous():
        return new
    return torch.empty_like(old, memory_format=torch.preserve_format).detach().copy_(new)
