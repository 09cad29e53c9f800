"""The weights of recurrent layers: one matrix for the inputs and one for the state, for each layer and direction.

Each is quantized as that of a Linear, one scale a row: a row makes one gate of one hidden unit. Files hold both
directions as one tensor, with the gates in the order of ONNX.

Axes: D directions, G gates times hidden units, I inputs or hidden units.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import nn

from tinypress.bits import unpack
from tinypress.facts import QuantizedWeight
from tinypress.parameter_names import GATES

RECURRENT = (nn.LSTM, nn.GRU, nn.RNN)
NODES: Mapping[str, type[nn.Module]] = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}


def matrices(layer: nn.RNNBase) -> tuple[str, ...]:
    """Names of the layer's weights, without its biases."""
    return tuple(name for name, _ in layer.named_parameters() if name.startswith("weight_"))


def has_plain_state(layer: nn.RNNBase) -> bool:
    """Whether the state is what the gates make, as files have it: not projected to fewer units."""
    return not getattr(layer, "proj_size", 0)


def stacked(
    weights: Mapping[str, QuantizedWeight], name: str, operator: str
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Integers [D, G, I] and scales [D, G] as an ONNX ``operator`` has the weight ``name``."""
    order = GATES[NODES[operator]]
    integers, scales = [], []
    for part in (name, f"{name}_reverse"):
        if part not in weights:
            continue
        weight = weights[part]
        rows = weight.shape[0]
        q_GI = unpack(weight.packed, weight.bits, int(np.prod(weight.shape)), signed=True).numpy()
        scale_G = np.broadcast_to(weight.scale.numpy().astype(np.float32), (rows,))
        places = np.arange(rows).reshape(len(order), -1)[list(order)].reshape(-1)
        integers.append(q_GI.astype(np.int64).reshape(weight.shape)[places])
        scales.append(scale_G[places])
    return np.stack(integers), np.stack(scales)
