"""Two layers in place of one: a narrow one and its widening, or a convolution per channel and a mixing of channels."""

from __future__ import annotations

from typing import Literal

from torch import nn

Pair = Literal["low rank", "separable"]
_CONVOLUTIONS: tuple[type[nn.Conv1d | nn.Conv2d | nn.Conv3d], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def can_be_paired(layer: nn.Module, pair: Pair) -> bool:
    """True for linear layers and convolutions without groups, of exactly torch's classes; separable needs a kernel."""
    if type(layer) in _CONVOLUTIONS:
        assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        return layer.groups == 1 and (pair == "low rank" or max(layer.kernel_size) > 1)
    return type(layer) is nn.Linear and pair == "low rank"


def paired(layer: nn.Module, pair: Pair, rank: int = 0) -> nn.Sequential:
    """Untrained layers of the shapes that take the place of ``layer``, of its dtype, device and training mode.

    ``low rank``: to ``rank`` and on to the outputs; a convolution keeps its kernel in the first. ``separable``: each
    input channel for itself with the layer's kernel, then 1x1 across channels. The bias is in the second.
    """
    bias = getattr(layer, "bias", None) is not None
    if isinstance(layer, nn.Linear):
        made = nn.Sequential(
            nn.Linear(layer.in_features, rank, bias=False), nn.Linear(rank, layer.out_features, bias=bias)
        )
    else:
        assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        middle = rank if pair == "low rank" else layer.in_channels
        kind = type(layer)
        made = nn.Sequential(
            kind(
                layer.in_channels,
                middle,
                layer.kernel_size,  # type: ignore[arg-type]
                layer.stride,  # type: ignore[arg-type]
                layer.padding,  # type: ignore[arg-type]
                layer.dilation,  # type: ignore[arg-type]
                groups=1 if pair == "low rank" else layer.in_channels,
                bias=False,
                padding_mode=layer.padding_mode,
            ),
            kind(middle, layer.out_channels, 1, bias=bias),
        )
    weight = layer.weight
    made.to(device=weight.device, dtype=weight.dtype)
    for parameter in made.parameters():
        parameter.requires_grad_(bool(weight.requires_grad))
    return made.train(layer.training)
