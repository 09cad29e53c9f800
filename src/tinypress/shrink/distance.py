"""How far a network is from what it has to return, and what goes wrong when it runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tinypress.graph import forward_eval, tensors_of
from tinypress.shrink.adapt import said


def difference(
    model: nn.Module,
    example_inputs: tuple[Tensor, ...],
    due: Sequence[Tensor],
    tolerance: Mapping[bool, float] | None = None,
) -> str | None:
    """What goes wrong when ``model`` runs, or how far from ``due`` it is; None if it is right but for rounding."""
    off = distance(model, example_inputs, due)
    if isinstance(off, str):
        return off
    wide = all(x.dtype == torch.float64 for x in due if x.is_floating_point())
    return None if off <= (tolerance or TOLERANCE)[wide] else said(off)


def distance(model: nn.Module, example_inputs: tuple[Tensor, ...], due: Sequence[Tensor]) -> float | str:
    """The largest difference from ``due`` as a share of each output's largest value, or what goes wrong when
    ``model`` runs. Of whole numbers and truth values it is the share that differs."""
    outputs = attempt(model, example_inputs, [tuple(x.shape) for x in due])
    return outputs if isinstance(outputs, str) else farthest(outputs, due)


def farthest(outputs: Sequence[Tensor], due: Sequence[Tensor]) -> float:
    most = 0.0
    for got, want in zip(outputs, due, strict=True):
        if not want.numel():
            continue
        if not want.is_floating_point():
            most = max(most, float((got != want).double().mean()))
            continue
        off = float((got - want).abs().max()) / max(float(want.abs().max()), 1e-6)
        most = max(most, off if math.isfinite(off) else _of_finite(got, want))
    return most


def _of_finite(got: Tensor, want: Tensor) -> float:
    """The same of the finite numbers, where all others are the same in both."""
    finite = torch.isfinite(got) & torch.isfinite(want)
    if not bool((finite | (got == want)).all()):
        return float("inf")
    if not bool(finite.any()):
        return 0.0
    return float((got - want)[finite].abs().max()) / max(float(want[finite].abs().max()), 1e-6)


# In float64, and in fewer bits, where the order of a sum moves deep networks more.
TOLERANCE = {True: 1e-9, False: 1e-2}
# What is so near needs no other try.
EQUAL = {True: 1e-9, False: 1e-5}
# Of one network that is built in two ways, and does the same sums in the same order.
SAME = {True: 1e-12, False: 1e-6}


def attempt(
    model: nn.Module, example_inputs: tuple[Tensor, ...], shapes: list[tuple[int, ...]] | None
) -> tuple[Tensor, ...] | str:
    """What the forward pass returns, or what goes wrong in it: an error, or other shapes where they are given."""
    try:
        outputs = tensors_of(forward_eval(model, example_inputs))
    except Exception as error:  # whatever the user's forward() raises
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    now = [tuple(x.shape) for x in outputs]
    return outputs if shapes is None or now == shapes else f"its output has shapes {now}, not {shapes}"


def check_forward(model: nn.Module, original: nn.Module, example_inputs: tuple[Tensor, ...]) -> str | None:
    """What goes wrong when ``model`` runs in place of ``original``, None if the output keeps its shapes."""
    shapes = [tuple(x.shape) for x in tensors_of(forward_eval(original, example_inputs))]
    outputs = attempt(model, example_inputs, shapes)
    return outputs if isinstance(outputs, str) else None
