"""The share of weights that are zero."""

from __future__ import annotations

import math
from numbers import Real

import numpy as np
import torch
from torch import Tensor, nn

from tinypress.errors import InputError
from tinypress.prune.blocks import Bits, Flags, each_block, is_known
from tinypress.prune.weights import prunable_weights, require_readable


def calculate_sparsity(module_or_tensor: nn.Module | Tensor) -> float:
    """The fraction, 0..1, of zeros among all elements of a tensor or all prunable weights of a module.

    Biases and normalization do not count, and a parameter that several layers share counts once. Of a
    single layer of another kind the ``weight`` counts. An empty tensor has sparsity 0.

    Raises:
        InputError: the argument is neither a module nor a tensor.
        ModelError: the module has no weights.
    """
    call = f"calculate_sparsity({type(module_or_tensor).__name__})"
    if isinstance(module_or_tensor, Tensor):
        return zero_fraction(module_or_tensor)
    if not isinstance(module_or_tensor, nn.Module):
        raise InputError(call, "this is neither a module nor a tensor", "Give a torch.nn.Module or a tensor")
    own = module_or_tensor._parameters.get("weight")
    if own is not None and not list(module_or_tensor.children()):
        require_readable(call, "weight", own)
        return zero_fraction(own)
    weights, _ = prunable_weights(call, module_or_tensor, None)
    total = sum(weight.numel() for weight in weights.values())
    return sum(count_zeros(weight) for weight in weights.values()) / total if total else 0.0


def count_zeros(tensor: Tensor) -> int:
    """How many elements are zero."""
    flat = tensor.detach().reshape(-1)
    if not is_known(flat.dtype) or flat.device.type != "cpu":
        return flat.numel() - int(torch.count_nonzero(flat))
    # PyTorch's own count takes a branch at each element and is far slower where zeros are scattered
    return sum(each_block({"": flat}, _count_zero_bits))


def _count_zero_bits(name: str, bits: Bits, flags: tuple[Flags, Flags]) -> int:
    return int(np.count_nonzero(np.equal(bits, 0, out=flags[0])))


def zero_fraction(tensor: Tensor) -> float:
    """The fraction of elements that are zero."""
    return count_zeros(tensor) / tensor.numel() if tensor.numel() else 0.0


def count_to_prune(call: str, sparsity: object, total: int) -> int:
    """round(sparsity * total).

    Raises:
        InputError: ``sparsity`` is not a number from 0 to 1.
    """
    remedy = "Give the fraction of weights to set to zero, from 0 to 1, such as 0.9"
    if isinstance(sparsity, bool) or not isinstance(sparsity, Real):
        raise InputError(call, f"sparsity is a {type(sparsity).__name__}", remedy)
    fraction = float(sparsity)
    if math.isnan(fraction) or not 0.0 <= fraction <= 1.0:
        raise InputError(call, f"sparsity is {fraction}", remedy)
    return round(fraction * total)
