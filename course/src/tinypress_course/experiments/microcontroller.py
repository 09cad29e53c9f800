"""TinyML's question: does it fit a chip with a megabyte of flash and a quarter of that in RAM?

Two numbers decide it: the weights must fit the flash, and the largest input and output that a layer holds at the
same time must fit the RAM (Lin et al., "MCUNet: Tiny Deep Learning on IoT Devices" (2020), section 2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

FLASH_BYTES = 1 << 20
RAM_BYTES = 1 << 18


@dataclass(frozen=True)
class Activations:
    """Bytes of each layer's input and output together, one sample, one byte a value; in the order they run."""

    by_layer: dict[str, int]

    @property
    def peak_bytes(self) -> int:
        """What a runtime that keeps nothing else must hold."""
        return max(self.by_layer.values())


def activations_of(model: nn.Module, sample: Tensor) -> Activations:
    """Run ``sample`` [1, ...] through ``model`` and note how much each layer without children holds."""
    held: dict[str, int] = {}

    def note(name: str) -> object:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            held[name] = inputs[0].numel() + output.numel()

        return hook

    hooks = [
        module.register_forward_hook(note(name))
        for name, module in model.named_modules()
        if not list(module.children())
    ]
    with torch.no_grad():
        model(sample)
    for each in hooks:
        each.remove()
    return Activations(held)
