"""What the calibration samples feed to one layer: X X^T and the mean magnitude of each input channel.

A convolution is a matrix over the patches of its input. Axes: J groups of a convolution (1 otherwise), K weights
of one output channel, I input channels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tinypress.task import Split

Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
_CONVOLVE = {
    nn.Conv1d: nn.functional.conv1d,
    nn.Conv2d: nn.functional.conv2d,
    nn.Conv3d: nn.functional.conv3d,
}


@dataclass(frozen=True)
class Inputs:
    """Sums over everything that a layer was fed: float64."""

    hessian_JKK: Tensor
    mean_abs_I: Tensor


def layers_in_order(
    model: nn.Module, inputs: tuple[Tensor, ...], layers: Sequence[nn.Module]
) -> list[nn.Module]:
    """Those of ``layers`` that a forward pass calls, in the order in which it first does."""
    called: dict[nn.Module, None] = {}
    hooks = [layer.register_forward_pre_hook(lambda own, _: called.setdefault(own)) for layer in layers]
    try:
        with torch.no_grad():
            model(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return list(called)


def observe(model: nn.Module, layers: Sequence[Layer], samples: Split, batch_size: int = 32) -> Inputs | None:
    """Run ``samples`` through ``model`` and sum up what ``layers``, which share one weight, are fed.

    Returns:
        ``None`` where none of them is called.
    """
    sums: list[tuple[Tensor, Tensor, int]] = []

    def add(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, Layer)
        x_JNK = patches(layer, given[0].detach()).double()
        product = x_JNK.transpose(1, 2) @ x_JNK
        magnitude, count = _magnitudes(layer, given[0].detach())
        if sums:
            before = sums.pop()
            product, magnitude, count = product + before[0], magnitude + before[1], count + before[2]
        sums.append((product, magnitude, count))

    hooks = [layer.register_forward_pre_hook(add) for layer in layers]
    try:
        with torch.no_grad():
            for start in range(0, len(samples), batch_size):
                model(*(column[start : start + batch_size] for column in samples.inputs))
    finally:
        for hook in hooks:
            hook.remove()
    if not sums:
        return None
    product, magnitude, count = sums[0]
    return Inputs(product, magnitude / max(1, count))


class _Enough(Exception):
    """Ends a forward pass."""


def paired_rows(
    networks: tuple[nn.Module, nn.Module],
    name: str,
    samples: Split,
    rows: int,
    seed: int,
    batch_size: int = 16,
) -> tuple[Tensor, Tensor] | None:
    """What the layer called ``name`` is fed in either network, in the same ``rows`` places drawn at random: [J, N, K].

    Returns:
        ``None`` where the samples never reach it.
    """
    starts = range(0, len(samples), batch_size)
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    for network, parts in zip(networks, found, strict=True):
        draw = torch.Generator().manual_seed(seed)  # the same places in both

        def keep(
            layer: nn.Module,
            given: tuple[Tensor, ...],
            parts: list[Tensor] = parts,
            draw: torch.Generator = draw,
        ) -> None:
            assert isinstance(layer, Layer)
            all_JNK = patches(layer, given[0].detach())
            count = min(all_JNK.shape[1], -(-rows // len(starts)))
            parts.append(all_JNK[:, torch.randperm(all_JNK.shape[1], generator=draw)[:count]].float())
            raise _Enough

        hook = network.get_submodule(name).register_forward_pre_hook(keep)
        try:
            for start in starts:
                with torch.no_grad(), contextlib.suppress(_Enough):
                    network(*(column[start : start + batch_size] for column in samples.inputs))
        finally:
            hook.remove()
    if not found[0]:
        return None
    first, second = (torch.cat(parts, 1) for parts in found)
    return first, second


def patches(layer: Layer, x: Tensor) -> Tensor:
    """[J, N, K]: all that the rows of the weight are multiplied with."""
    if isinstance(layer, nn.Linear):
        return x.reshape(1, -1, layer.in_features)
    x = x if x.dim() == layer.weight.dim() else x[None]
    padding: str | int | tuple[int, ...] = layer.padding
    if layer.padding_mode != "zeros":
        x, padding = nn.functional.pad(x, layer._reversed_padding_repeated_twice, mode=layer.padding_mode), 0
    width = layer.weight[0].numel()
    # a kernel that picks one weight's place each turns the convolution into its patches
    picks = (
        torch.eye(width, dtype=x.dtype)
        .view(width, *layer.weight.shape[1:])
        .repeat(layer.groups, *[1] * (layer.weight.dim() - 1))
    )
    convolve = next(function for kind, function in _CONVOLVE.items() if isinstance(layer, kind))
    found = convolve(x, picks, None, layer.stride, padding, layer.dilation, layer.groups)
    split = found.flatten(2).view(len(x), layer.groups, width, -1)
    result: Tensor = split.permute(1, 0, 3, 2).reshape(layer.groups, -1, width)
    return result


def _magnitudes(layer: Layer, x: Tensor) -> tuple[Tensor, int]:
    if isinstance(layer, nn.Linear):
        rows = x.reshape(-1, layer.in_features)
    else:
        x = x if x.dim() == layer.weight.dim() else x[None]
        rows = x.movedim(1, -1).reshape(-1, x.shape[1])
    return rows.abs().double().sum(0), len(rows)
