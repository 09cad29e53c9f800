"""Rules for recurrent layers: a hidden unit leaves with its row in every gate, in every layer and direction.

torch keeps the gates of a layer end to end in one tensor, [gates * H, in], and one width H for all layers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from tinypress.graph import Node, arguments
from tinypress.shrink.flow import Dims, Flow, Labels

aten = torch.ops.aten


def _recurrent(gates: int) -> Callable[[Flow, Node], tuple[Dims, ...] | None]:
    def rule(flow: Flow, node: Node) -> tuple[Dims, ...] | None:
        given = arguments(node)
        x, states, weights = flow.dims(given.get("input")), given.get("hx"), given.get("params")
        if x is None or not isinstance(weights, tuple):
            return None
        per_layer = 4 if given["has_biases"] else 2
        directions = 2 if given["bidirectional"] else 1
        layers = len(weights) // per_layer // directions
        if layers * directions * per_layer != len(weights):  # projections
            return None
        units: Labels | None = None
        reads = x[-1]
        for layer in range(layers):
            for direction in range(directions):
                start = (layer * directions + direction) * per_layer
                dims = [flow.dims(value) for value in weights[start : start + per_layer]]
                w_ih, w_hh, *biases = dims
                if w_ih is None or w_hh is None:
                    return None
                if units is None:
                    units = w_hh[1]
                flow.tie(units, w_hh[1])
                flow.tie(w_ih[1], reads)
                for labels in (w_ih[0], w_hh[0], *(bias[0] for bias in biases if bias is not None)):
                    flow.tie(labels, np.tile(units, gates))
                flow.produce(weights[start], 0)
                flow.produce(weights[start + 1], 0)
            assert units is not None
            reads = np.tile(units, directions)
        assert units is not None
        held = tuple(flow.dims(s) for s in (states if isinstance(states, tuple) else (states,)))
        for state in held:
            if state is None:
                return None
            flow.tie(state[-1], units)
        return ((*x[:-1], reads), *((*state[:-1], units) for state in held if state is not None))

    return rule


RECURRENT: dict[object, Callable[[Flow, Node], tuple[Dims, ...] | None]] = {
    aten.lstm: _recurrent(4),
    aten.gru: _recurrent(3),
    aten.rnn_tanh: _recurrent(1),
    aten.rnn_relu: _recurrent(1),
}
