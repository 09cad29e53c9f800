"""Which parameters and layers of a network the constants and nodes of its ONNX graph are.

The exporter gives constants that it made of parameters a number for a name: it transposes the weight of a product, and
stacks and reorders the gates of a recurrent layer; where that is large it leaves the nodes that do so in the graph.
A finding that names ``val_5`` helps nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx.reference
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

_QDQ = frozenset({"QuantizeLinear", "DequantizeLinear"})
# PyTorch's gates in the order of ONNX: input, output, forget, cell; update, reset, hidden
_PUTTING = frozenset({"Slice", "Concat", "Unsqueeze", "Transpose", "Reshape", "Squeeze"})
_RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
GATES: dict[type[nn.Module], tuple[int, ...]] = {nn.LSTM: (0, 3, 1, 2), nn.GRU: (1, 0, 2), nn.RNN: (0,)}


def with_parameter_names(proto: onnx.ModelProto, model: nn.Module) -> onnx.ModelProto:
    """``proto`` with the names of ``model``'s parameters on all matrices that are one of them, turned or stacked."""
    _fold_recurrent(proto)
    stored = {tensor.name for tensor in proto.graph.initializer}
    made = [(name, array) for name, array in _made_of_parameters(model) if name not in stored]
    renamed: dict[str, str] = {}
    known = {name for name, _ in model.named_parameters()}
    for tensor in proto.graph.initializer:
        dims = tuple(tensor.dims)
        if tensor.name in known or tensor.data_type != TensorProto.FLOAT or len(dims) < 2:
            continue
        alike = [(place, array) for place, (_, array) in enumerate(made) if array.shape == dims]
        if not alike:
            continue
        values = numpy_helper.to_array(tensor)
        place = next((place for place, array in alike if np.array_equal(array, values)), None)
        if place is not None:
            renamed[tensor.name] = made.pop(place)[0]
            tensor.name = renamed[tensor.name]
    for node in proto.graph.node:
        for position, read in enumerate(node.input):
            node.input[position] = renamed.get(read, read)
    return proto


def _fold_recurrent(proto: onnx.ModelProto) -> None:
    """Work out weights of recurrent layers that nodes put together of stored tensors, and drop those nodes."""
    graph = proto.graph
    maker = {name: node for node in graph.node for name in node.output if name}
    values = {tensor.name: tensor for tensor in graph.initializer}
    opsets = {entry.domain: entry.version for entry in proto.opset_import}
    arrays: dict[str, Any] = {}

    def worked_out(name: str) -> bool:
        if name in arrays or name in values:
            arrays.setdefault(name, numpy_helper.to_array(values[name]) if name in values else None)
            return True
        node = maker.get(name)
        if node is None or node.op_type not in _PUTTING or not all(worked_out(x) for x in node.input if x):
            return False
        run: Any = onnx.reference.ReferenceEvaluator(node, opsets=opsets)
        found = run.run(None, {x: arrays[x] for x in node.input if x})
        arrays.update(zip(node.output, found, strict=True))
        return True

    folded: set[str] = set()
    for node in graph.node:
        if node.op_type in _RECURRENT:
            folded |= {name for name in node.input[1:3] if name not in values and worked_out(name)}
    if not folded:
        return
    graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(arrays[name]), name) for name in folded
    )
    nodes, used = [], {value.name for value in graph.output}
    for node in reversed(graph.node):
        if used & set(node.output) - folded:
            nodes.append(node)
            used |= set(node.input)
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    graph.ClearField("node")
    graph.node.extend(reversed(nodes))
    graph.ClearField("initializer")
    graph.initializer.extend(kept)


def layers_of_nodes(graph: onnx.GraphProto) -> tuple[str, ...]:
    """For each node the layer whose parameters it reads; else its operator and the layers that it follows."""
    stored = {tensor.name for tensor in graph.initializer}
    behind: dict[str, tuple[str, ...]] = {}  # the layers that a value comes from
    found = []
    for node in graph.node:
        # integers are read by way of their real numbers
        parameters = () if node.op_type in _QDQ else (name.removesuffix(":d") for name in node.input)
        own = next((name.rsplit(".", 1)[0] for name in parameters if name in stored and "." in name), None)
        before = tuple(dict.fromkeys(layer for name in node.input for layer in behind.get(name, ())))
        after = f"{node.op_type} after {' and '.join(before)}" if before else node.op_type
        found.append(own if own is not None else after)
        behind |= dict.fromkeys(node.output, (own,) if own is not None else before[:2])
    return tuple(found)


def _made_of_parameters(model: nn.Module) -> Iterator[tuple[str, NDArray[np.generic]]]:
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter.dim() == 2:
            yield name, _array(parameter.T)
    for name, layer in model.named_modules():
        if isinstance(layer, nn.RNNBase) and type(layer) in GATES:
            for number in range(layer.num_layers):
                for part, array in _recurrent(layer, number):
                    yield f"{name}.{part}_l{number}" if name else f"{part}_l{number}", array


def _recurrent(layer: nn.RNNBase, number: int) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """The weights of one layer as ONNX has them: directions stacked, gates in its order, both biases end to end."""
    ways = ("", "_reverse") if layer.bidirectional else ("",)
    for part in ("weight_ih", "weight_hh"):
        yield part, np.stack([_in_order(layer, f"{part}_l{number}{way}") for way in ways])
    if layer.bias:
        both = [
            np.concatenate([_in_order(layer, f"{part}_l{number}{way}") for part in ("bias_ih", "bias_hh")])
            for way in ways
        ]
        yield "bias", np.stack(both)


def _in_order(layer: nn.RNNBase, name: str) -> NDArray[np.generic]:
    parameter = getattr(layer, name)
    assert isinstance(parameter, Tensor)
    order = GATES[type(layer)]
    return _array(torch.cat([parameter.detach().chunk(len(order))[gate] for gate in order]))


def _array(tensor: Tensor) -> NDArray[np.generic]:
    array: NDArray[np.generic] = tensor.detach().cpu().numpy()
    return array
