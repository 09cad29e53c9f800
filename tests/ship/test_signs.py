"""Weights as signed bytes: the same numbers, for processors whose dot products take them."""

from __future__ import annotations

import importlib

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from tinypress.errors import ShipError
from tinypress.facts import Compressed
from tinypress.float_onnx import to_float_onnx
from tinypress.measure.islands import float_islands
from tinypress.measure.machine import machine
from tinypress.quantize import quantize_model
from tinypress.runtimes.onnx import optimized_graph
from tinypress.ship import to_onnx
from tinypress.ship.read_plan import plan_of_file
from tinypress.ship.signs import (
    DOT_PRODUCTS,
    UNSIGNED_EXACT_ON,
    choose_signed,
    exact_on,
    fit_signed,
    holds_signed,
)
from tinypress.task import Split

WITHOUT, WITH = ("avx2", "avx512f"), ("avx2", "avx512f", "avx512_vnni")


class Net(nn.Module):
    """A convolution, a product with a bias and one without."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 8, 3, padding=1)
        self.hidden = nn.Linear(64, 16)
        self.head = nn.Linear(16, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.conv(x)).flatten(1)
        logits: Tensor = self.head(torch.relu(self.hidden(y)))
        return logits


@pytest.fixture(scope="module")
def quantized() -> tuple[Compressed, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(64, 2, 8)
    return quantize_model(Net().eval(), Split((x,), torch.zeros(64)), (x[:2],)), x


def on(isa: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the writer believe that it runs on a processor with these instruction sets."""
    found = machine(1).model_copy(update={"isa": isa})
    monkeypatch.setattr(importlib.import_module("tinypress.ship.to_onnx"), "machine", lambda threads: found)


def exact_answer(written: onnx.ModelProto, x: Tensor) -> np.ndarray:
    """What the runtime computes where its kernels may not saturate."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(written.SerializeToString(), options)
    return session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]


def test_both_forms_hold_the_same_numbers_and_answer_alike(
    quantized: tuple[Compressed, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    compressed, x = quantized
    on(WITH, monkeypatch)
    signed = to_onnx(compressed, (x[:2],))
    unsigned = to_onnx(compressed, (x[:2],), signed_weights=False)
    assert (holds_signed(signed), holds_signed(unsigned)) == (True, False)
    assert signed.ByteSize() == unsigned.ByteSize()
    plans = [plan_of_file(each)[1] for each in (signed, unsigned)]
    assert set(plans[0].weights) == set(plans[1].weights)
    assert len(plans[0].weights) == 3
    for name, weight in plans[0].weights.items():
        assert torch.equal(weight.packed, plans[1].weights[name].packed)
        assert torch.equal(
            weight.packed.view(torch.int8), compressed.plan.weights[name].packed.view(torch.int8)
        )
        assert torch.equal(weight.scale, plans[1].weights[name].scale)
        assert (weight.scheme, weight.shape) == ("symmetric", plans[1].weights[name].shape)
    assert plans[0].values == plans[1].values
    assert np.array_equal(exact_answer(signed, x), exact_answer(unsigned, x))


def test_a_signed_layer_in_floats_is_an_island_all_the_same(
    quantized: tuple[Compressed, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    compressed, x = quantized
    on(WITH, monkeypatch)
    signed = to_onnx(compressed, (x[:2],))
    assert float_islands(signed.graph, optimized_graph(signed.SerializeToString())) == ()
    # a runtime that fuses nothing leaves every layer in floats
    assert [each.operator for each in float_islands(signed.graph, signed.graph)][:1] == ["Conv"]


def test_the_processor_decides_and_is_not_fooled(
    quantized: tuple[Compressed, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    compressed, x = quantized
    on(WITHOUT, monkeypatch)
    assert not holds_signed(to_onnx(compressed, (x[:2],)))
    with pytest.raises(ShipError, match="signed weights need 8-bit dot products"):
        to_onnx(compressed, (x[:2],), signed_weights=True)
    assert [fit_signed(isa) for isa in (WITHOUT, WITH, ("neon", "asimddp"), ())] == [
        False,
        True,
        False,
        False,
    ]
    assert choose_signed("here", False, WITH) is False
    assert choose_signed("here", None, WITH) is True


def test_where_a_file_is_exact_depends_on_its_weights(
    quantized: tuple[Compressed, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    compressed, x = quantized
    on(WITH, monkeypatch)
    assert exact_on(to_onnx(compressed, (x[:2],))) == DOT_PRODUCTS
    assert exact_on(to_onnx(compressed, (x[:2],), signed_weights=False)) == UNSIGNED_EXACT_ON
    assert exact_on(to_float_onnx(compressed.model, (x[:2],))) == UNSIGNED_EXACT_ON


class Tied(nn.Module):
    """A table whose rows are looked up, and that is the weight of a product as well."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 8)
        self.mix = nn.Linear(8, 8)
        self.head = nn.Linear(8, 10, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.relu(self.mix(self.table(ids).mean(1))))
        return logits


def test_a_table_that_is_looked_up_keeps_unsigned_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    ids = torch.randint(0, 10, (64, 5))
    compressed = quantize_model(Tied().eval(), Split((ids,), torch.zeros(64)), (ids[:2],))
    on(WITH, monkeypatch)
    signed = to_onnx(compressed, (ids[:2],))
    unsigned = to_onnx(compressed, (ids[:2],), signed_weights=False)
    assert np.array_equal(exact_answer(signed, ids), exact_answer(unsigned, ids))
    kinds = {tensor.name: tensor.data_type for tensor in signed.graph.initializer}
    assert kinds["head.weight"] == onnx.TensorProto.UINT8
    assert kinds["mix.weight"] == onnx.TensorProto.INT8


class Sequences(nn.Module):
    """A convolution, an LSTM in both directions, and a product: all round their inputs at run time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 6, 3, padding=1)
        self.lstm = nn.LSTM(6, 5, batch_first=True, bidirectional=True)
        self.head = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.lstm(torch.relu(self.conv(x)).transpose(1, 2))
        logits: Tensor = self.head(y[:, -1])
        return logits


def test_layers_that_round_at_run_time_have_both_forms_too(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 2, 8)
    compressed = quantize_model(Sequences().eval(), Split((x,), torch.zeros(64)), (x[:2],), dynamic=True)
    on(WITH, monkeypatch)
    signed = to_onnx(compressed, (x[:2],))
    unsigned = to_onnx(compressed, (x[:2],), signed_weights=False)
    assert (exact_on(signed), exact_on(unsigned)) == (DOT_PRODUCTS, UNSIGNED_EXACT_ON)
    kinds = {node.op_type for node in signed.graph.node}
    assert kinds >= {"ConvInteger", "MatMulInteger", "DynamicQuantizeLSTM"}
    stored = {
        each.name: each.data_type for each in signed.graph.initializer if each.name in compressed.plan.weights
    }
    assert set(stored.values()) == {onnx.TensorProto.INT8}
    plans = [plan_of_file(each)[1] for each in (signed, unsigned)]
    assert plans[0].weights.keys() == plans[1].weights.keys()
    for name, weight in plans[0].weights.items():
        assert torch.equal(weight.packed, plans[1].weights[name].packed)
        assert torch.equal(weight.scale, plans[1].weights[name].scale)
    assert np.array_equal(exact_answer(signed, x), exact_answer(unsigned, x))
    on(WITHOUT, monkeypatch)
    assert not holds_signed(to_onnx(compressed, (x[:2],)))
    with pytest.raises(ShipError, match="signed weights need"):
        to_onnx(compressed, (x[:2],), signed_weights=True)
