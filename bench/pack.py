"""Packing weights to integers beside one pass over the same memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from bench.timing import interleaved, ratio_spread
from tinypress.quantize.layer import quantize_layer_weights


def measure(weights: int, repeats: int) -> dict[str, object]:
    """Time of quantizing one Linear layer, per channel or in groups of 32, and of ``torch.mul(w, 1.0)``, all warm."""
    side = round(weights**0.5)
    layer = nn.Linear(side, side, bias=False)
    weight = layer.weight.detach()
    room = torch.empty_like(weight)
    functions: dict[str, Callable[[], object]] = {
        "one_pass": lambda: torch.mul(weight, 1.0, out=room),
        "int8": lambda: quantize_layer_weights(layer, 8),
        "int8_affine": lambda: quantize_layer_weights(layer, 8, scheme="affine"),
        "int4": lambda: quantize_layer_weights(layer, 4),
        "int4_groups": lambda: quantize_layer_weights(layer, 4, group_size=32),
        "int4_groups_affine": lambda: quantize_layer_weights(layer, 4, scheme="affine", group_size=32),
    }
    timings = interleaved(
        functions, repeats, room_bytes=dict.fromkeys(functions, weight.nbytes), warm=frozenset(functions)
    )
    one_pass = timings.pop("one_pass")
    return {
        "weights": weight.numel(),
        "one_pass": one_pass.as_json(),
        **{
            name: {**timing.as_json(), "passes": ratio_spread(timing, one_pass)}
            for name, timing in timings.items()
        },
    }
