"""Layers that round their input at run time: the reference, the file, and ONNX Runtime give the same."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from quantized_networks import Recurrent, data_of
from torch import nn

from tinypress.archive import read_archive, write_archive
from tinypress.errors import InputError, ShipError
from tinypress.facts import QuantizedWeight, QuantPlan
from tinypress.float_onnx import to_float_onnx
from tinypress.measure.artifact import read_onnx
from tinypress.quantize import dequantize_layer_weights, quantize_model, run_reference
from tinypress.quantize.dynamic import what_it_costs
from tinypress.quantize.layer import quantize_weight
from tinypress.quantize.recurrent import stacked
from tinypress.quantize.reference import evaluate, program_of
from tinypress.quantize.reference.dynamic import quantize_now
from tinypress.quantize.rows import Grid
from tinypress.runtimes.onnx import open_onnx, optimized_graph
from tinypress.ship import write_onnx
from tinypress.ship.dynamic import with_dynamic
from tinypress.ship.equal import compare_with_reference, equality_of_file
from tinypress.ship.read_plan import plan_of_file

RANDOM = np.random.default_rng(0)


def packed(*shape: int) -> QuantizedWeight:
    weight = torch.from_numpy(RANDOM.standard_normal(shape).astype(np.float32))
    return quantize_weight("test", weight, 0, Grid(8, "symmetric"))


def real(weight: QuantizedWeight) -> NDArray[np.float32]:
    made: NDArray[np.float32] = dequantize_layer_weights(weight).numpy()
    return made


def model_of(
    nodes: list[onnx.NodeProto], shape: list[Any], constants: dict[str, NDArray[Any]]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def products() -> tuple[onnx.ModelProto, QuantPlan]:
    """A grouped convolution with a Relu, a product with its bias behind it that is read twice, and a Gemm."""
    weights = {"conv.weight": packed(6, 2, 3, 3), "a.weight": packed(7, 5), "b.weight": packed(3, 7)}
    nodes = [
        helper.make_node(
            "Conv", ["x", "conv.weight", "conv.bias"], ["c"], group=2, pads=[1, 0, 0, 1], strides=[2, 1]
        ),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Reshape", ["r", "shape"], ["f"]),
        helper.make_node("MatMul", ["f", "a.weight"], ["m"]),
        helper.make_node("Add", ["a.bias", "m"], ["n"]),
        helper.make_node("Tanh", ["n"], ["t"]),
        helper.make_node("Gemm", ["t", "b.weight", "b.bias"], ["y"], transB=1),
    ]
    constants: dict[str, NDArray[Any]] = {
        "conv.weight": real(weights["conv.weight"]),
        "conv.bias": RANDOM.standard_normal(6).astype(np.float32),
        "shape": np.array([-1, 5], np.int64),
        "a.weight": real(weights["a.weight"]).T,
        "a.bias": RANDOM.standard_normal(7).astype(np.float32),
        "b.weight": real(weights["b.weight"]),
        "b.bias": RANDOM.standard_normal(3).astype(np.float32),
    }
    return model_of(nodes, ["n", 4, 10, 5], constants), QuantPlan(weights, {}, frozenset(weights))


def recurrent(
    operator: str, ways: int, dynamic: bool, *, started: bool = False
) -> tuple[onnx.ModelProto, QuantPlan]:
    gates = {"LSTM": 4, "GRU": 3}[operator]
    ends = ("", "_reverse")[:ways]
    weights = {f"r.weight_ih_l0{end}": packed(gates * 8, 5) for end in ends}
    weights |= {f"r.weight_hh_l0{end}": packed(gates * 8, 8) for end in ends}
    constants: dict[str, NDArray[Any]] = {
        "bias": RANDOM.standard_normal((ways, 2 * gates * 8)).astype(np.float32)
    }
    for name in ("r.weight_ih_l0", "r.weight_hh_l0"):
        q_DGI, scale_DG = stacked(weights, name, operator)
        constants[name] = (q_DGI * scale_DG[..., None]).astype(np.float32)
    constants["start"] = 0.3 * RANDOM.standard_normal((ways, 4, 8)).astype(np.float32)
    direction = "bidirectional" if ways == 2 else "forward"
    starts = ["", "start", "start"][: 3 if operator == "LSTM" else 2] if started else []
    inputs = ["t", "r.weight_ih_l0", "r.weight_hh_l0", "bias", *starts]
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        helper.make_node(operator, inputs, ["r"], direction=direction, hidden_size=8),
        helper.make_node("Transpose", ["r"], ["y"], perm=[2, 0, 1, 3]),
    ]
    named = frozenset(weights if dynamic else ())
    return model_of(nodes, ["n", 6, 5], constants), QuantPlan(weights, {}, named)


def written_of(proto: onnx.ModelProto, plan: QuantPlan) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(proto)
    return with_dynamic(copied, plan)


def operators(proto: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in optimized_graph(proto.SerializeToString()).node]


@given(
    arrays.arrays(
        np.float32, arrays.array_shapes(max_dims=3, max_side=6), elements=st.floats(-1e6, 1e6, width=32)
    )
)
@example(np.array([1e-45], np.float32))
@settings(max_examples=60, deadline=None)
def test_integers_are_those_of_the_standard_and_zero_is_exact(x: NDArray[np.float32]) -> None:
    q, value = quantize_now(x)
    node = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])
    evaluator: Any = onnx.reference.ReferenceEvaluator(node, opsets={"": 20})
    if value.scale > 0 and np.any(x):
        standard, scale, zero = evaluator.run(None, {"x": x})
        assert (value.scale, value.zero_point) == (float(scale), int(zero))
        assert np.array_equal(q, standard)
    assert 0 <= value.zero_point <= 255
    back = (q.astype(np.float64) - value.zero_point) * value.scale
    # zero's own rounding costs the ends up to half a step, and a step has to be a number
    assert np.abs(back - x).max() <= value.scale * 1.001 + 255 * np.finfo(np.float32).smallest_subnormal
    assert not back[x == 0].any()


def test_products_are_those_of_the_reference_to_the_last_bit_and_fused() -> None:
    proto, plan = products()
    written = written_of(proto, plan)
    x = RANDOM.standard_normal((16, 4, 10, 5)).astype(np.float32)
    compared, count = compare_with_reference("x", written, proto, plan, (x,))
    assert count == 16
    assert [(layer.layer, layer.kind, layer.differing) for layer in compared] == [
        ("conv", "dynamic", 0),
        ("a", "dynamic", 0),
    ]
    found = operators(written)
    assert found.count("DynamicQuantizeMatMul") == 2
    assert found.count("ConvInteger") == 1
    assert not {"Gemm", "Conv", "MatMul"} & set(found)
    floats = open_onnx(proto.SerializeToString()).run([x])
    assert np.abs(open_onnx(written.SerializeToString()).run([x]) - floats).max() < 0.1 * np.abs(floats).max()


def test_what_two_layers_read_is_rounded_once() -> None:
    weights = {"a.weight": packed(4, 5), "b.weight": packed(4, 5)}
    nodes = [
        helper.make_node("MatMul", ["x", "a.weight"], ["a"]),
        helper.make_node("MatMul", ["x", "b.weight"], ["b"]),
        helper.make_node("MatMul", ["x", "a.weight"], ["c"]),  # a layer that is called twice
        helper.make_node("Sum", ["a", "b", "c"], ["y"]),
    ]
    proto = model_of(nodes, ["n", 5], {name: real(weight).T for name, weight in weights.items()})
    plan = QuantPlan(weights, {}, frozenset(weights))
    written = written_of(proto, plan)
    assert [node.op_type for node in written.graph.node].count("DynamicQuantizeLinear") == 1
    x = RANDOM.standard_normal((3, 5)).astype(np.float32)
    compared, _ = compare_with_reference("x", written, proto, plan, (x,))
    assert [layer.differing for layer in compared] == [0, 0, 0]


@pytest.mark.parametrize("ways", [1, 2])
def test_an_lstm_is_that_of_the_reference(ways: int) -> None:
    proto, plan = recurrent("LSTM", ways, dynamic=True)
    written = written_of(proto, plan)
    assert operators(written) == ["Transpose", "DynamicQuantizeLSTM", "Transpose"]
    x = 2 * RANDOM.standard_normal((4, 6, 5)).astype(np.float32)
    compared, _ = compare_with_reference("x", written, proto, plan, (x,))
    assert [(layer.layer, layer.kind, layer.differing) for layer in compared] == [("r", "recurrent", 0)]
    floats = open_onnx(proto.SerializeToString()).run([x])
    ours = open_onnx(written.SerializeToString()).run([x])
    assert 0 < np.abs(ours - floats).max() < 0.05


def test_an_lstm_goes_on_from_a_state() -> None:
    proto, plan = recurrent("LSTM", 2, dynamic=True, started=True)
    x = RANDOM.standard_normal((4, 6, 5)).astype(np.float32)
    ours = evaluate(program_of(proto, plan), {"x": x}, "float32")
    assert np.abs(ours - open_onnx(written_of(proto, plan).SerializeToString()).run([x])).max() < 1e-5
    without, _ = recurrent("LSTM", 2, dynamic=True)
    assert np.abs(ours - open_onnx(without.SerializeToString()).run([x])).max() > 0.05


@pytest.mark.parametrize("ways", [1, 2])
def test_a_gru_stores_eight_bits_and_computes_in_float(ways: int) -> None:
    proto, plan = recurrent("GRU", ways, dynamic=False)
    written = written_of(proto, plan)
    stored = {tensor.name: tensor.data_type for tensor in written.graph.initializer}
    assert stored["r.weight_ih_l0"] == stored["r.weight_hh_l0"] == TensorProto.UINT8
    x = RANDOM.standard_normal((4, 6, 5)).astype(np.float32)
    floats, ours = (open_onnx(each.SerializeToString()).run([x]) for each in (proto, written))
    assert np.allclose(ours, floats, atol=1e-6)


@pytest.mark.parametrize("layer", ["a.weight", "conv.weight"])
def test_a_wrong_zero_point_stops_shipping_and_names_the_layer(layer: str) -> None:
    proto, plan = products()
    written = written_of(proto, plan)
    written.graph.initializer.append(numpy_helper.from_array(np.array(127, np.uint8), "wrong"))
    (node,) = (node for node in written.graph.node if layer in node.input and "Integer" in node.op_type)
    node.input[3] = "wrong"
    x = RANDOM.standard_normal((4, 4, 10, 5)).astype(np.float32)
    with pytest.raises(
        ShipError, match=f"layer '{layer.removesuffix('.weight')}' does not compute what the plan says"
    ):
        compare_with_reference("x", written, proto, plan, (x,))


def test_a_wrong_scale_of_an_lstm_stops_shipping() -> None:
    proto, plan = recurrent("LSTM", 1, dynamic=True)
    written = written_of(proto, plan)
    for tensor in written.graph.initializer:
        if tensor.name == "r.weight_hh_l0:s":
            tensor.CopyFrom(numpy_helper.from_array(1.2 * numpy_helper.to_array(tensor), tensor.name))
    x = RANDOM.standard_normal((4, 6, 5)).astype(np.float32)
    with pytest.raises(ShipError, match="layer 'r' does not compute"):
        compare_with_reference("x", written, proto, plan, (x,))


@pytest.mark.parametrize("made", [products, lambda: recurrent("LSTM", 2, True)], ids=["products", "lstm"])
def test_the_plan_is_read_back_from_the_file(made: Any) -> None:
    proto, plan = made()
    again, found = plan_of_file(written_of(proto, plan))
    assert found.dynamic == plan.dynamic == set(found.weights)
    for name, weight in plan.weights.items():
        assert torch.equal(found.weights[name].packed, weight.packed)
        assert torch.equal(found.weights[name].scale, weight.scale)
    x = RANDOM.standard_normal([4 if d == "n" else d for d in _dims(proto)]).astype(np.float32)
    before, after = (open_onnx(each.SerializeToString()).run([x]) for each in (proto, again))
    assert np.allclose(before, after, atol=1e-5)


def _dims(proto: onnx.ModelProto) -> list[Any]:
    return [d.dim_value or "n" for d in proto.graph.input[0].type.tensor_type.shape.dim]


class Tagger(nn.Module):
    """Words, attention and a head that is the table of words."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.middle, self.head = nn.Linear(16, 16), nn.Linear(16, 50, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.words(ids)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        logits: torch.Tensor = self.head(torch.relu(self.middle(x)).mean(1))
        return logits


def exported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[int, onnx.ModelProto] = {}

    def exported(model: nn.Module, example: tuple[torch.Tensor, ...], **settings: Any) -> onnx.ModelProto:
        if id(model) not in seen:
            seen[id(model)] = to_float_onnx(model, example, opset=21)
        copied = onnx.ModelProto()
        copied.CopyFrom(seen[id(model)])
        return copied

    for name in ("quantize.model", "ship.to_onnx", "quantize.reference.run"):
        monkeypatch.setattr(importlib.import_module(f"tinypress.{name}"), "to_float_onnx", exported)


def test_a_network_of_words_without_any_calibration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported_once(monkeypatch)
    torch.manual_seed(0)
    model, ids = Tagger().eval(), torch.randint(0, 50, (8, 6))
    pressed = quantize_model(model, None, (ids[:2],), dynamic=True)
    assert pressed.plan is not None
    assert pressed.plan.dynamic == {
        "attention.in_proj_weight", "attention.out_proj.weight", "middle.weight"
    }  # fmt: skip
    assert set(pressed.plan.weights) == {*pressed.plan.dynamic, "words.weight", "head.weight"}
    write_onnx(tmp_path / "a.onnx", pressed, (ids[:2],), check=(ids,))
    facts = read_onnx(tmp_path / "a.onnx", (ids[:1].numpy(),))
    assert {layer.name: layer.bits for layer in facts.layers if layer.bits == 8} .keys() >= {
        "attention.in_proj_weight", "attention.out_proj", "middle"
    }  # fmt: skip
    equality = equality_of_file(tmp_path / "a.onnx", (ids.numpy(),), ())
    assert equality is not None
    assert equality.layers == equality.bit_equal == 3
    answer = open_onnx(tmp_path / "a.onnx").run([ids.numpy()])
    assert np.abs(run_reference(pressed, (ids[:2],), (ids,)).numpy() - answer).max() < 1e-5
    with torch.no_grad():
        assert np.abs(model(ids).numpy() - answer).max() < 0.05


def test_an_lstm_between_calibrated_layers_on_real_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported_once(monkeypatch)
    train, _, test = data_of("lstm")
    example, x = (train.inputs[0][:2],), test.inputs[0][:64]
    torch.manual_seed(0)
    model = Recurrent().eval()
    pressed = quantize_model(model, train.take(slice(0, 64)), example, dynamic=["lstm"])
    assert pressed.plan is not None
    assert pressed.plan.dynamic == {"lstm.weight_ih_l0", "lstm.weight_hh_l0"}
    assert pressed.plan.values
    assert not any(note.code == "TP201" for note in pressed.notes)
    write_onnx(tmp_path / "a.onnx", pressed, example, check=(x,))
    found = optimized_graph(tmp_path / "a.onnx").node
    assert {"DynamicQuantizeLSTM", "QGemm"} <= {node.op_type for node in found}
    equality = equality_of_file(tmp_path / "a.onnx", (x.numpy(),), ())
    assert equality is not None
    assert equality.layers == 3
    answer = open_onnx(tmp_path / "a.onnx").run([x.numpy()])
    assert (run_reference(pressed, example, (x,)).numpy().argmax(1) == answer.argmax(1)).all()
    facts = read_onnx(tmp_path / "a.onnx", (x[:1].numpy(),))
    bits = {layer.name: layer.bits for layer in facts.layers}
    assert bits["lstm.weight_ih_l0"] == bits["lstm.weight_hh_l0"] == 8
    write_archive(tmp_path / "a.safetensors", pressed)
    again = read_archive(tmp_path / "a.safetensors", model)
    assert again.plan is not None
    assert again.plan.dynamic == pressed.plan.dynamic


def test_what_cannot_be_is_refused_and_what_it_costs_is_said() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    example = (torch.randn(2, 4),)
    for wrong, message in (
        ({"dynamic": ["9"]}, "'9' is no layer"),
        ({"dynamic": ["0"], "keep": ["0"]}, "'0' stays float"),
        ({"dynamic": True, "bits": 4}, "8 symmetric bits"),
        ({"dynamic": True, "scheme": "affine"}, "8 symmetric bits"),
        ({"dynamic": ["0"], "bits": {"0": 4}}, "'0' has other bits"),
    ):
        with pytest.raises(InputError, match=message):
            quantize_model(model, None, example, **wrong)  # type: ignore[arg-type]
    projected = nn.ModuleDict({"lstm": nn.LSTM(4, 8, proj_size=2), "head": nn.Linear(2, 2)})
    with pytest.raises(InputError, match="'lstm' has a projected state"):
        quantize_model(projected, None, example, dynamic=["lstm"])
    network = nn.ModuleDict({"conv": nn.Conv1d(4, 4, 3), "gru": nn.GRU(4, 4), "fc": nn.Linear(4, 4)})
    told = {note.code: note for note in what_it_costs(network, {"conv", "gru", "fc"})}
    assert set(told) == {"TP215", "TP216"}
    assert "slower than in float: conv." in told["TP215"].text
    assert told["TP216"].layer == "gru"
