"""Constants and nodes of an exported graph carry the names of the network's own parameters and layers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from tinypress.parameter_names import layers_of_nodes, with_parameter_names


def proto_of(arrays: dict[str, np.ndarray], nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    stored = [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in arrays.items()]
    shown = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    return helper.make_model(helper.make_graph(nodes, "g", shown[:1], shown[1:], stored))


def names(proto: onnx.ModelProto) -> list[str]:
    return [tensor.name for tensor in proto.graph.initializer]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(4, 2)


def test_a_turned_matrix_has_its_parameters_name() -> None:
    model = Attention()
    weight = model.inner.in_proj_weight.detach().numpy()
    nodes = [
        helper.make_node("MatMul", ["x", "val_5"], ["h"]),
        helper.make_node("Add", ["h", "val_6"], ["y"]),
    ]
    proto = with_parameter_names(
        proto_of({"val_5": weight.T, "val_6": np.ones((1, 12), np.float32)}, nodes), model
    )
    assert names(proto) == ["inner.in_proj_weight", "val_6"]
    assert proto.graph.node[0].input[1] == "inner.in_proj_weight"
    assert layers_of_nodes(proto.graph) == ("inner", "Add after inner")


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_the_gates_of_a_recurrent_layer_are_recognised(kind: type[nn.RNNBase], bidirectional: bool) -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"steps": kind(3, 4, 2, bidirectional=bidirectional)})
    order = {nn.LSTM: (0, 3, 1, 2), nn.GRU: (1, 0, 2)}[kind]
    ways = ("", "_reverse") if bidirectional else ("",)

    def turned(name: str) -> np.ndarray:
        chunks = getattr(model["steps"], name).detach().chunk(len(order))
        return torch.cat([chunks[gate] for gate in order]).numpy()

    arrays = {
        "val_1": np.stack([turned(f"weight_ih_l1{way}") for way in ways]),
        "val_2": np.stack([turned(f"weight_hh_l1{way}") for way in ways]),
        "val_3": np.stack(
            [np.concatenate([turned(f"bias_ih_l1{way}"), turned(f"bias_hh_l1{way}")]) for way in ways]
        ),
    }
    nodes = [helper.make_node(kind.__name__, ["x", *arrays], ["y"])]
    found = with_parameter_names(proto_of(arrays, nodes), model)
    assert names(found) == ["steps.weight_ih_l1", "steps.weight_hh_l1", "steps.bias_l1"]
    assert layers_of_nodes(found.graph) == ("steps",)


def test_integers_belong_to_the_layer_of_their_weight() -> None:
    weight = np.zeros((2, 2), np.uint8)
    nodes = [
        helper.make_node("DequantizeLinear", ["head.weight", "s", "z"], ["head.weight:d"]),
        helper.make_node("MatMul", ["x", "head.weight:d"], ["h"]),
        helper.make_node("Relu", ["h"], ["y"]),
    ]
    graph = proto_of({"head.weight": weight, "s": np.float32([1]), "z": np.uint8([0])}, nodes).graph
    assert layers_of_nodes(graph)[1:] == ("head", "Relu after head")
