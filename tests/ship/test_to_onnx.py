"""The integer file against the plan: every number in it, and what ONNX Runtime makes of it."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from tinypress.archive import read_archive, write_archive
from tinypress.errors import ModelError
from tinypress.facts import Compressed, QuantizedValue, QuantPlan
from tinypress.float_onnx import to_float_onnx
from tinypress.measure.artifact import read_onnx
from tinypress.quantize import dequantize_layer_weights, quantize_layer_weights, quantize_model
from tinypress.quantize.layer import quantize_weight
from tinypress.quantize.rows import Grid
from tinypress.runtimes.onnx import open_onnx, optimized_graph
from tinypress.ship import to_onnx, write_onnx
from tinypress.ship.equal import compare_with_reference, equality_of_file
from tinypress.ship.read_plan import plan_of_file
from tinypress.task import Split
from tinypress.tasks.digits import DigitsNet

X = QuantizedValue(scale=0.02, zero_point=100)
H = QuantizedValue(scale=0.03, zero_point=0)


class Small(nn.Module):
    """x [B, 3] -> a -> relu -> b -> y [B, 2]; ``b`` has no bias, so that it is a MatMul in the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x)))


def small() -> Small:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Small()


def float_graph(model: Small, opset: int = 20) -> onnx.ModelProto:
    """What the exporter would write of ``model``, which takes it seconds."""
    tensors = {
        "a.weight": model.a.weight.detach().numpy(),
        "a.bias": model.a.bias.detach().numpy(),
        "b.weight": model.b.weight.detach().numpy().T.copy(),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "a.weight", "a.bias"], ["g"], transB=1),
        helper.make_node("Relu", ["g"], ["h"]),
        helper.make_node("MatMul", ["h", "b.weight"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", model.a.in_features])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def written(
    monkeypatch: pytest.MonkeyPatch, per_channel: bool = True, signed: bool = False
) -> tuple[onnx.ModelProto, Small, QuantPlan]:
    model = small()
    layers = {"a.weight": model.a, "b.weight": model.b}
    weights = {name: quantize_layer_weights(layer, per_channel=per_channel) for name, layer in layers.items()}
    plan = QuantPlan(weights, {"x": X, "h": H})
    # the package's name for the module is that of the function in it
    module = importlib.import_module("tinypress.ship.to_onnx")
    monkeypatch.setattr(module, "to_float_onnx", lambda model, example: float_graph(model))
    found = module.machine(1).model_copy(update={"isa": ("avx2", "avx512_vnni")})
    monkeypatch.setattr(module, "machine", lambda threads: found)
    proto = to_onnx(Compressed(model, plan=plan), (torch.zeros(1, 3),), signed_weights=signed)
    return proto, model, plan


def read(proto: onnx.ModelProto, stored: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The scale with which ``stored`` is dequantized, and the real values: (q - zero point) * scale."""
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    node = next(n for n in proto.graph.node if n.op_type == "DequantizeLinear" and n.input[0] == stored)
    integers, scale = arrays[stored], arrays[node.input[1]]
    zero = arrays[node.input[2]] if len(node.input) > 2 else np.zeros_like(scale, dtype=np.int32)
    axis = next((a.i for a in node.attribute), 0)
    along = [-1 if i == axis and scale.ndim else 1 for i in range(integers.ndim)]
    shifted = integers.astype(np.int64) - zero.astype(np.int64).reshape(along)
    return scale, (shifted * scale.reshape(along)).astype(np.float32)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("per_channel", [True, False])
def test_the_weights_in_the_file_are_those_of_the_plan(
    monkeypatch: pytest.MonkeyPatch, per_channel: bool, signed: bool
) -> None:
    proto, _, plan = written(monkeypatch, per_channel, signed)
    for name, turned in (("a.weight", False), ("b.weight", True)):
        real = dequantize_layer_weights(plan.weights[name]).numpy()
        np.testing.assert_array_equal(read(proto, name)[1], real.T if turned else real)


@pytest.mark.parametrize("per_channel", [True, False])
def test_a_bias_has_the_product_of_the_scales_of_input_and_weight(
    monkeypatch: pytest.MonkeyPatch, per_channel: bool
) -> None:
    proto, model, plan = written(monkeypatch, per_channel)
    scale, real = read(proto, "a.bias")
    product = np.float32(X.scale) * plan.weights["a.weight"].scale.numpy()
    np.testing.assert_array_equal(scale.reshape(-1), product)
    assert np.all(np.abs(real - model.a.bias.detach().numpy()) <= 0.5001 * scale)


def test_values_are_quantized_as_planned_and_the_output_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    proto, _, _ = written(monkeypatch)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    found = {
        node.input[0]: (arrays[node.input[1]].item(), arrays[node.input[2]].item())
        for node in proto.graph.node
        if node.op_type == "QuantizeLinear"
    }
    assert found == {
        "x": (pytest.approx(X.scale), X.zero_point),
        "h": (pytest.approx(H.scale), H.zero_point),
    }
    assert {node.input[0] for node in proto.graph.node if node.op_type in ("Gemm", "MatMul")} == {
        "x:d",
        "h:d",
    }
    assert proto.graph.output[0].name == proto.graph.node[-1].output[0] == "y"


def test_the_runtime_computes_what_the_integers_stand_for(monkeypatch: pytest.MonkeyPatch) -> None:
    proto, _, plan = written(monkeypatch)
    x = np.random.default_rng(0).uniform(-2, 3, (50, 3)).astype(np.float32)

    def rounded(values: NDArray[np.float64], as_: QuantizedValue) -> NDArray[np.float64]:
        q = np.clip(np.rint(values / np.float32(as_.scale)) + as_.zero_point, 0, 255)
        return (q - as_.zero_point) * as_.scale

    a, b = (
        dequantize_layer_weights(plan.weights[name]).double().numpy() for name in ("a.weight", "b.weight")
    )
    hidden = np.maximum(rounded(x.astype(np.float64), X) @ a.T + read(proto, "a.bias")[1], 0)
    expected = rounded(hidden, H) @ b.T
    found = open_onnx(proto.SerializeToString()).run((x,))
    # a sum on the edge between two integers may fall to the other one: then h differs by one step
    np.testing.assert_allclose(found, expected, atol=1.01 * H.scale * np.abs(b).max())
    assert np.median(np.abs(found - expected)) < 1e-6


def test_a_network_that_was_quantized_ships_and_answers_like_the_float_one(tmp_path: Path) -> None:
    model, x = small(), torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    compressed = quantize_model(model, Split((x,), torch.zeros(200)), (x[:1],))
    write_onnx(tmp_path / "a.onnx", compressed, (x[:1],))
    found = open_onnx(tmp_path / "a.onnx").run((x.numpy(),))
    expected = model(x).detach().numpy()
    assert np.abs(found - expected).max() < 0.03 * np.abs(expected).max()
    assert not np.array_equal(found, expected)


def mixed(monkeypatch: pytest.MonkeyPatch) -> tuple[onnx.ModelProto, onnx.ModelProto, Compressed]:
    """``a`` in 4 bits, groups of 16; ``b`` in 8 bits with activations."""
    model = Wide()
    weights = {
        "a.weight": quantize_weight("a", model.a.weight.detach(), 0, Grid(4, "symmetric", 16)),
        "b.weight": quantize_layer_weights(model.b),
    }
    with torch.no_grad():
        for name, weight in weights.items():
            model.get_parameter(name).copy_(dequantize_layer_weights(weight))
    compressed = Compressed(model, plan=QuantPlan(weights, {"h": QuantizedValue(0.03, 0)}))
    module = importlib.import_module("tinypress.ship.to_onnx")
    monkeypatch.setattr(module, "to_float_onnx", lambda model, example, opset=20: float_graph(model, opset))
    return to_onnx(compressed, (torch.zeros(1, 32),)), float_graph(model, 21), compressed


class Wide(Small):
    """The same with 32 inputs, which fill two blocks."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.a = nn.Linear(32, 4)


def test_each_layer_is_written_by_the_operators_for_its_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    proto, _, compressed = mixed(monkeypatch)
    kinds = [node.op_type for node in proto.graph.node]
    assert kinds.count("MatMulNBits") == 1
    optimized = [node.op_type for node in optimized_graph(proto.SerializeToString()).node]
    assert "MatMulIntegerToFloat" in optimized  # b
    x = np.random.default_rng(0).normal(size=(50, 32)).astype(np.float32)
    found = open_onnx(proto.SerializeToString()).run((x,))
    with torch.no_grad():
        expected = compressed.model(torch.from_numpy(x)).numpy()
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_a_mixed_file_equals_the_reference_and_can_be_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    proto, floats, compressed = mixed(monkeypatch)
    assert compressed.plan is not None
    x = np.random.default_rng(0).normal(size=(16, 32)).astype(np.float32)
    compared, _ = compare_with_reference("mixed", proto, floats, compressed.plan, (x,))
    assert [(layer.layer, layer.kind) for layer in compared] == [("Relu after a", "float")]
    again, plan = plan_of_file(proto)
    assert list(plan.weights) == ["b.weight"]
    assert compare_with_reference("mixed", proto, again, plan, (x,))[0] == compared


@pytest.mark.parametrize("per_channel", [True, False])
def test_the_plan_can_be_read_out_of_the_file(monkeypatch: pytest.MonkeyPatch, per_channel: bool) -> None:
    proto, model, plan = written(monkeypatch, per_channel)
    floats, found = plan_of_file(proto)
    assert {name: (v.scale, v.zero_point) for name, v in found.values.items()} == {
        name: (float(np.float32(v.scale)), v.zero_point) for name, v in plan.values.items()
    }
    for name, weight in plan.weights.items():
        assert torch.equal(found.weights[name].packed, weight.packed), name
        assert torch.equal(found.weights[name].scale, weight.scale.reshape(-1))
        assert (found.weights[name].axis, found.weights[name].shape) == (weight.axis, weight.shape)
    nodes = [(node.op_type, list(node.input), list(node.output)) for node in floats.graph.node]
    assert nodes == [(n.op_type, list(n.input), list(n.output)) for n in float_graph(model).graph.node]


class Repeated(nn.Module):
    """One layer that runs twice, and two layers that share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.again, self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.again(torch.relu(self.again(x))))
        found: Tensor = self.two(torch.relu(self.one(x)))
        return found


def test_a_weight_that_several_layers_use_is_stored_once(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(100, 8)
    compressed = quantize_model(Repeated(), Split((x,), torch.zeros(100)), (x[:2],))
    model = compressed.model
    assert model.get_submodule("one").weight is model.get_submodule("two").weight
    write_onnx(tmp_path / "a.onnx", compressed, (x[:2],), check=(x,))
    stored = [t for t in onnx.load(tmp_path / "a.onnx").graph.initializer if list(t.dims) == [8, 8]]
    assert len(stored) == 2
    assert {t.data_type for t in stored} in ({TensorProto.UINT8}, {TensorProto.INT8})
    assert open_onnx(tmp_path / "a.onnx").run((x.numpy(),)).shape == (100, 8)


class Tied(nn.Module):
    """Tokens [B, 5] to logits of every word [B, 5, 400], by the table itself."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(400, 32), nn.Linear(32, 400)
        self.block = nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True)
        self.head.weight = self.table.weight

    def forward(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.head(self.block(self.table(tokens)))
        return found


def test_a_table_that_is_also_a_weight_is_stored_once_in_integers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokens = torch.randint(400, (50, 5))
    compressed = quantize_model(Tied().eval(), Split((tokens,), torch.zeros(50)), (tokens[:2],))
    model = compressed.model
    assert model.get_submodule("table").weight is model.get_submodule("head").weight
    write_onnx(tmp_path / "a.onnx", compressed, (tokens[:2],), check=(tokens,))
    matrices = [t for t in onnx.load(tmp_path / "a.onnx").graph.initializer if len(t.dims) == 2]
    assert [sorted(t.dims) for t in matrices].count([32, 400]) == 1
    assert {t.data_type for t in matrices} <= {TensorProto.UINT8, TensorProto.INT8}  # attention's own as well
    facts = read_onnx(tmp_path / "a.onnx", (tokens[:1].numpy(),))
    assert (facts.islands, facts.float_layers) == ((), ())
    table = next(layer for layer in facts.layers if sorted(layer.weight_shape) == [32, 400])
    real = dequantize_layer_weights(compressed.plan.weights["table.weight"])  # type: ignore[union-attr]
    assert (table.bits, table.histogram.low) == (8, pytest.approx(real.min().item()))
    shipped = torch.from_numpy(open_onnx(tmp_path / "a.onnx").run((tokens.numpy(),)))
    with torch.no_grad():
        assert torch.nn.functional.cosine_similarity(shipped, model(tokens), dim=-1).min() > 0.99
    equality = equality_of_file(tmp_path / "a.onnx", (tokens.numpy(),), ("avx2",))
    assert equality is not None
    assert equality.layers == 5  # the products; sums and norms stay float
    write_archive(tmp_path / "a.safetensors", compressed)
    again = read_archive(tmp_path / "a.safetensors", Tied())
    with torch.no_grad():
        assert torch.equal(again.model.eval()(tokens), model(tokens))


@pytest.mark.slow
def test_an_integer_file_above_a_megabyte_is_at_most_28_percent_of_the_float_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    pixels = torch.rand(40, 1, 28, 28)
    for kind in (
        DigitsNet(width=64),
        nn.Sequential(nn.Flatten(), nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 10)),
    ):
        whole = tmp_path / "float.onnx"
        write_onnx(whole, Compressed(kind.eval()), (pixels[:2],))
        compressed = quantize_model(kind, Split((pixels,), torch.zeros(40)), (pixels[:2],))
        write_onnx(tmp_path / "int8.onnx", compressed, (pixels[:2],))
        assert whole.stat().st_size > 1_000_000
        assert (tmp_path / "int8.onnx").stat().st_size <= 0.28 * whole.stat().st_size


class Attentive(nn.Module):
    """Steps [B, 6, 4] to 3 logits. Its graph also adds and concatenates shapes and positions: whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 16)
        self.block = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.block(self.embed(x)).mean(1))
        return found


def test_whole_numbers_in_a_graph_are_not_quantized(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Attentive().eval(), torch.randn(64, 6, 4)
    compressed = quantize_model(model, Split((x,), torch.zeros(64, dtype=torch.int64)), (x[:2],))
    write_onnx(tmp_path / "a.onnx", compressed, (x[:2],))
    shipped = torch.from_numpy(open_onnx(tmp_path / "a.onnx").run((x.numpy(),)))
    with torch.no_grad():
        assert torch.nn.functional.cosine_similarity(shipped, model(x)).min() > 0.98
    stored = {
        t.name
        for t in onnx.load(tmp_path / "a.onnx").graph.initializer
        if t.data_type in (TensorProto.UINT8, TensorProto.INT8)
    }
    assert any("block.linear1" in name for name in stored)


@pytest.mark.parametrize("kind", ["conv", "deconv", "linear"])
def test_a_layer_that_stays_float_between_integers_is_not_rounded_by_the_runtime(kind: str) -> None:
    """ONNX Runtime gives a float layer between integers 8 bits with one scale for all, unless the file prevents it."""
    torch.manual_seed(0)
    middle: nn.Module = {
        "conv": lambda: nn.Conv1d(4, 4, 3, padding=1),
        "deconv": lambda: nn.ConvTranspose1d(4, 4, 3, padding=1),
        "linear": lambda: nn.Linear(4, 4),
    }[kind]()
    outer = nn.Linear if kind == "linear" else (lambda a, b: nn.Conv1d(a, b, 1))
    model = nn.Sequential(outer(3, 4), nn.ReLU(), middle, nn.ReLU(), outer(4, 2)).eval()
    with torch.no_grad():
        model[0].weight[1], model[0].bias[1] = 0, -1  # never fires
        # one scale for all would drown the rest
        middle.weight[(slice(None), 1) if kind != "deconv" else (1,)] = 300
    x = torch.randn(64, 3) if kind == "linear" else torch.randn(64, 3, 8)
    keep = () if kind == "deconv" else ("2",)
    quantized = quantize_model(model, Split((x,), torch.zeros(64)), (x[:2],), keep=keep)
    runner = open_onnx(to_onnx(quantized, (x[:2],)).SerializeToString())
    answer = torch.from_numpy(np.array(runner.run([x.numpy()])))
    whole = model(x).detach()
    assert float((answer - whole).norm() / whole.norm()) < 0.05


def test_an_export_leaves_the_exporter_as_it_was_and_repeats_its_bytes() -> None:
    exporter = importlib.import_module("torch.onnx._internal.exporter._registration").onnxscript_apis
    before = exporter.get_torchlib_ops
    model, example = nn.Sequential(nn.Linear(3, 4), nn.GELU()), (torch.randn(2, 3),)
    one, again = (to_float_onnx(model, example).SerializeToString() for _ in range(2))
    assert one == again
    assert exporter.get_torchlib_ops is before
    with pytest.raises(ModelError):
        to_float_onnx(nn.Sequential(nn.Linear(4, 4)), example)
    assert exporter.get_torchlib_ops is before
