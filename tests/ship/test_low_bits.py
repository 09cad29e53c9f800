"""Files with weights of few bits: ONNX Runtime answers as the dequantized network does, and the file is small."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from tinypress.bits import unpack
from tinypress.errors import InputError
from tinypress.facts import Compressed, QuantPlan
from tinypress.quantize import dequantize_layer_weights, quantize_layer_weights, quantize_weights
from tinypress.runtimes.onnx import open_onnx
from tinypress.ship import to_onnx, write_onnx
from tinypress.ship.blocks import blocks_of
from tinypress.ship.low_bits import with_low_bits
from tinypress.task import Split

GROUPS = [None, 8, 16, 32, 48, 64, 100, 512]


def layer_graph(kind: str, layer: nn.Module) -> onnx.ModelProto:
    """One layer as the exporter writes it: x -> y."""
    weight = layer.weight.detach().numpy()
    bias = getattr(layer, "bias", None)
    inits, given, free = {"w": weight}, TensorProto.FLOAT, ["n", weight.shape[1]]
    extra = [] if bias is None else ["b"]
    if bias is not None:
        inits["b"] = bias.detach().numpy()
    if kind == "gemm":
        nodes = [helper.make_node("Gemm", ["x", "w", *extra], ["y"], transB=1)]
    elif kind == "matmul":
        inits["w"] = weight.T.copy()
        nodes, free = [helper.make_node("MatMul", ["x", "w"], ["y"])], ["n", "t", weight.shape[1]]
    elif kind == "turned":
        nodes = [
            helper.make_node("Transpose", ["w"], ["wt"], perm=[1, 0]),
            helper.make_node("MatMul", ["x", "wt"], ["y"]),
        ]
    elif kind == "scaled":
        nodes = [helper.make_node("Gemm", ["x", "w", *extra], ["y"], transB=1, alpha=0.5)]
    elif kind == "conv":
        nodes = [helper.make_node("Conv", ["x", "w", *extra], ["y"], group=layer.groups)]
        free = ["n", layer.in_channels, 7, 6]
    else:
        given, free = TensorProto.INT64, ["n", "t"]
        nodes = [helper.make_node("Gather", ["w", "x"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", given, free)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in inits.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def kinds(proto: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


LAYERS = {
    "gemm": (lambda: nn.Linear(90, 20), (3, 90)),
    "matmul": (lambda: nn.Linear(40, 40, bias=False), (2, 3, 40)),
    "turned": (lambda: nn.Linear(70, 11, bias=False), (3, 70)),
    "scaled": (lambda: nn.Linear(64, 9, bias=False), (3, 64)),
    "conv": (lambda: nn.Conv2d(6, 8, 3, groups=2), (2, 6, 7, 6)),
    "gather": (lambda: nn.Embedding(50, 45), (3, 5)),
}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
def test_the_runtime_computes_what_the_plan_says(kind, bits, scheme):
    build, shape = LAYERS[kind]
    generator = torch.Generator().manual_seed(bits)
    for group, balanced in itertools.product(GROUPS, (False, True)):
        torch.manual_seed(bits)
        layer = build()
        packed = quantize_layer_weights(layer, bits, scheme=scheme, group_size=group)
        if balanced:
            object.__setattr__(packed, "input_scale", torch.rand(packed.shape[1], generator=generator) + 0.5)
        layer.weight = nn.Parameter(dequantize_layer_weights(packed))
        x = torch.randint(0, 50, shape) if kind == "gather" else torch.randn(shape, generator=generator)
        proto = with_low_bits("", layer_graph(kind, layer), QuantPlan({"w": packed}))
        found = open_onnx(proto.SerializeToString()).run((x.numpy(),))
        with torch.no_grad():
            expected = layer(x).numpy() * (0.5 if kind == "scaled" else 1.0)
        assert np.abs(found - expected).max() <= 2e-6 * max(1.0, np.abs(expected).max()) * 4
        blocked = blocks_of(packed) is not None
        if kind in ("gemm", "matmul", "turned"):
            assert ("MatMulNBits" in kinds(proto)) == (blocked and bits <= 4)
        if kind == "gather":
            assert ("GatherBlockQuantized" in kinds(proto)) == blocked
        stored = {t.name: t for t in proto.graph.initializer}
        assert all(
            t.data_type != TensorProto.FLOAT or "scale" in name or name == "b" for name, t in stored.items()
        )


def test_the_very_integers_of_the_plan_are_in_the_file():
    layer = nn.Linear(64, 5)
    for scheme in ("symmetric", "affine"):
        packed = quantize_layer_weights(layer, 4, scheme=scheme, group_size=32)
        proto = with_low_bits("", layer_graph("gemm", set_weight(layer, packed)), QuantPlan({"w": packed}))
        stored = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
        q = unpack(torch.from_numpy(stored["w"].reshape(-1).copy()), 4, 320, signed=False).short()
        ours = unpack(packed.packed, 4, 320, signed=scheme == "symmetric").short()
        assert torch.equal(q, ours + 8 if scheme == "symmetric" else ours)
        assert np.array_equal(stored["w:scale"].reshape(-1), packed.scale.numpy())
        if scheme == "affine":
            z = unpack(torch.from_numpy(stored["w:zero_point"].reshape(-1).copy()), 4, 10, signed=False)
            assert torch.equal(z.int(), packed.zero_point)
        else:
            assert "w:zero_point" not in stored


def set_weight(layer: nn.Module, packed) -> nn.Module:
    layer = copy.deepcopy(layer)
    layer.weight = nn.Parameter(dequantize_layer_weights(packed))
    return layer


def test_a_weight_that_the_exporter_changed_is_refused():
    layer = nn.Linear(64, 5)
    packed = quantize_layer_weights(layer, 4, group_size=32)
    with pytest.raises(InputError, match="holds other values for 'w'"):
        with_low_bits("call", layer_graph("gemm", layer), QuantPlan({"w": packed}))


def test_scales_along_another_axis_are_refused():
    layer = nn.ConvTranspose1d(4, 6, 3)
    packed = quantize_layer_weights(layer, 4)
    proto = layer_graph("gemm", nn.Linear(3, 2))
    with pytest.raises(InputError, match="along axis 1"):
        with_low_bits("call", proto, QuantPlan({"w": packed}))


class Cnn(nn.Module):
    """x [B, 3, 12, 12] -> [B, 10]"""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.deep = nn.Conv2d(32, 256, 3, stride=2)
        self.grouped = nn.Conv2d(256, 256, 3, groups=2)
        self.head = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.deep(torch.relu(self.norm(self.first(x)))))
        return self.head(torch.relu(self.grouped(x)).mean((2, 3)))


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(128, 640), nn.ReLU(), nn.Linear(640, 640), nn.ReLU(), nn.Linear(640, 10, bias=False)
    )


def bert() -> nn.Module:
    transformers = pytest.importorskip("transformers")

    class Bert(nn.Module):
        """words [B, T] -> [B, T, words], with a head that is the table of words."""

        def __init__(self) -> None:
            super().__init__()
            settings = transformers.BertConfig(
                vocab_size=3000,
                hidden_size=128,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=256,
                max_position_embeddings=16,
            )
            self.bert = transformers.BertModel(settings, add_pooling_layer=False)
            self.head = nn.Linear(128, 3000, bias=False)
            self.head.weight = self.bert.embeddings.word_embeddings.weight

        def forward(self, words: Tensor) -> Tensor:
            return self.head(self.bert(words).last_hidden_state)

    return Bert()


NETWORKS = {
    "mlp": (mlp, lambda: torch.randn(5, 128), ()),
    "cnn": (Cnn, lambda: torch.randn(5, 3, 12, 12), ()),
    "bert": (bert, lambda: torch.randint(0, 3000, (5, 9)), ("bert.embeddings.word_embeddings",)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_whole_networks_ship_what_they_simulate_in_a_sixth_of_the_bytes(name, tmp_path):
    build, example, tables = NETWORKS[name]
    torch.manual_seed(0)
    model, x = build().eval(), example()
    method = "awq" if name == "mlp" else "nearest"
    scheme = "affine" if name == "cnn" else "symmetric"
    done = quantize_weights(
        model,
        4,
        group_size=32,
        method=method,
        scheme=scheme,
        calibration=Split((x,), torch.zeros(len(x))),
        embeddings=tables,
    )
    write_onnx(tmp_path / "low.onnx", done, (x[:2],))
    found = open_onnx(tmp_path / "low.onnx").run((x.numpy(),))
    with torch.no_grad():
        expected = done.model(x).numpy()
        exact = model(x).numpy()
    assert np.abs(found - expected).max() <= 3e-5 * np.abs(expected).max()
    assert np.abs(found - exact).max() > 1e-3 * np.abs(expected).max()  # it is not the float network
    floats = sum(parameter.nbytes for parameter in model.parameters())
    assert floats > 1_000_000
    share = (tmp_path / "low.onnx").stat().st_size / floats
    print(name, share)
    assert share <= 0.17
    proto = onnx.load(tmp_path / "low.onnx")
    used = set(kinds(proto))
    assert {"mlp": "MatMulNBits", "cnn": "DequantizeLinear", "bert": "GatherBlockQuantized"}[name] in used
    if name == "bert":
        assert "MatMulNBits" in used
        tied = [t for t in proto.graph.initializer if t.ByteSize() > 3000 * 64]
        assert len(tied) == 1  # the table and the head are one


def test_weights_alone_of_eight_bits_ship_too():
    model, x = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 4)), torch.randn(6, 20)
    done = quantize_weights(model, 8, group_size=None)
    found = open_onnx(to_onnx(done, (x[:2],)).SerializeToString()).run((x.numpy(),))
    assert np.allclose(found, done.model(x).detach().numpy(), atol=1e-5)


def test_a_network_whose_batch_norm_was_not_folded_is_refused():
    model = nn.Sequential(nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8), nn.ReLU()).eval()
    with torch.no_grad():
        model[1].running_var.uniform_(2, 3)
    done = quantize_weights(model)
    with pytest.raises(InputError, match="example_inputs"):
        to_onnx(done, (torch.zeros(2, 3, 9),))
    assert isinstance(done, Compressed)
