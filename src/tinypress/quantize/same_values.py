"""Which value of the traced graph is which value of the float ONNX graph.

PyTorch's exporter keeps most names of the graph that it is given, but decomposes some operators and then numbers the
values anew. So names are not relied on: two values are taken for one if they hold the same numbers in the same order
on samples, whatever shape each gives them. Of several equal ones it is the first that the output depends on: an LSTM's
last hidden state equals the end of its outputs, and only one of the two may be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from tinypress.errors import ModelError
from tinypress.graph import Node, Traced
from tinypress.graph.run import compute, execute
from tinypress.runtimes.onnx import open_onnx

_NEAR = (
    1e-3  # of the largest magnitude; two runtimes differ by 1e-6 or so, two values of one network by far more
)


def same_values(
    call: str,
    traced: Traced,
    model: nn.Module,
    proto: onnx.ModelProto,
    names: Sequence[str],
    inputs: tuple[Tensor, ...],
) -> Mapping[str, str]:
    """For each of ``names``, values of ``proto``: the node of ``traced`` that holds the same.

    Args:
        model: the network that both are graphs of.
        inputs: a few real samples.

    Raises:
        ModelError: a value has no counterpart, names it.
    """
    wanted = _in_onnx(proto, names, inputs)
    by_size: dict[int, list[str]] = {}
    for name, value in wanted.items():
        by_size.setdefault(value.size, []).append(name)
    needed = _needed(traced)
    found: dict[str, str] = {}
    best: dict[str, float] = {}

    def see(node: Node, before: Mapping[str, Any]) -> Any:
        value = compute(node, before) if node.kind == "call" else before[node.name]
        if node.name not in needed or not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        array = value.detach().cpu().reshape(-1).numpy()
        for name in by_size.get(array.size, ()):
            distance = float(np.abs(array - wanted[name]).max(initial=0.0))
            near = distance <= _NEAR * float(np.abs(wanted[name]).max(initial=0.0))
            # the first of several equals: what passes a value on comes after it
            if near and distance < best.get(name, np.inf):
                best[name], found[name] = distance, node.name
        return value

    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    with torch.no_grad():
        execute(traced, [x.clone() for x in inputs], tensors, see)
    lost = [name for name in names if name not in found]
    if lost:
        raise ModelError(
            call,
            f"the value {lost[0]!r} of the ONNX graph is none of the traced graph, so that training cannot round it",
            "Train with weights_only=True",
        )
    return found


def _needed(traced: Traced) -> set[str]:
    """The inputs and calls that the output depends on."""
    nodes, needed, left = traced.by_name(), set[str](), list(traced.outputs)
    while left:
        node = nodes[left.pop()]
        if node.name not in needed and node.kind in ("call", "input"):
            needed.add(node.name)
            left += node.inputs
    return needed


def _in_onnx(
    proto: onnx.ModelProto, names: Sequence[str], inputs: tuple[Tensor, ...]
) -> dict[str, np.ndarray[Any, Any]]:
    observed = onnx.ModelProto()
    observed.CopyFrom(proto)
    given = [value.name for value in observed.graph.input]
    outputs = {value.name for value in observed.graph.output}
    fetched = [name for name in names if name not in given]
    for name in fetched:
        if name not in outputs:
            observed.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    fed = {name: x.numpy() for name, x in zip(given, inputs, strict=True)}
    session = open_onnx(observed.SerializeToString(), outputs=None).session
    made = dict(zip(fetched, session.run(fetched, fed) if fetched else (), strict=True))
    return {name: (fed[name] if name in given else made[name]).reshape(-1) for name in names}
