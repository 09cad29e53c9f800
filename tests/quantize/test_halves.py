"""float16 and bfloat16 as the trivial quantization, through the plan, the archive and ONNX."""

from __future__ import annotations

from dataclasses import replace

import onnx
import pytest
import torch
from torch import nn

from quantize.test_weights_only import cnn, words
from tinypress.archive import archive_layers, read_archive, write_archive
from tinypress.errors import InputError, ModelError
from tinypress.measure.artifact import read_onnx
from tinypress.measure.weights import CompressionMetrics
from tinypress.quantize import dequantize_layer_weights, quantize_weights
from tinypress.runtimes.onnx import open_onnx
from tinypress.ship import write_onnx

HALVES = ["float16", "bfloat16"]
X = torch.randn(4, 4, 10, 10, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scheme", HALVES)
def test_the_nearest_half_from_the_plan_to_both_files(scheme, tmp_path):
    done = quantize_weights(cnn(), 16, scheme=scheme, example_inputs=(X[:2],))
    assert done.plan is not None
    for name, weight in done.plan.weights.items():
        real = dequantize_layer_weights(weight)
        assert torch.equal(real, real.to(getattr(torch, scheme)).float())
        assert torch.equal(done.model.get_parameter(name), real)
    head = cnn().head.weight.detach()
    assert torch.equal(done.model.head.weight, head.to(getattr(torch, scheme)).float())
    write_archive(tmp_path / "a", done)
    again = read_archive(tmp_path / "a", cnn())
    assert again.plan is not None
    for name, weight in done.plan.weights.items():
        assert torch.equal(again.plan.weights[name].packed, weight.packed)
        assert again.plan.weights[name].scheme == scheme
        assert torch.equal(again.model.get_parameter(name), done.model.get_parameter(name))
    listed = {tensor.name: tensor for tensor in archive_layers(tmp_path / "a")}
    assert (listed["head.weight"].bits, listed["head.weight"].encoded_bytes) == (16, 72)
    assert listed["first.weight"].nonzero == int(torch.count_nonzero(done.model.first.weight))
    write_onnx(tmp_path / "a.onnx", done, (X[:2],))
    found = open_onnx(tmp_path / "a.onnx").run((X.numpy(),))
    assert torch.allclose(torch.from_numpy(found), done.model(X).detach(), atol=1e-5)
    kind = onnx.TensorProto.FLOAT16 if scheme == "float16" else onnx.TensorProto.BFLOAT16
    stored = {t.name: t.data_type for t in onnx.load(tmp_path / "a.onnx").graph.initializer}
    assert stored["head.weight:packed"] == kind
    facts = read_onnx(tmp_path / "a.onnx", (X[:1].numpy(),))
    assert {layer.name: layer.bits for layer in facts.layers} == dict.fromkeys(
        ("first", "grouped", "deep", "head"), 16
    )
    size = CompressionMetrics.calculate_model_size(done)
    assert size.by_dtype[scheme] == sum(weight.packed.numel() for weight in done.plan.weights.values())


def test_tied_halves_are_stored_once(tmp_path):
    done = quantize_weights(words(), 16, scheme="bfloat16", embeddings=("table",))
    write_archive(tmp_path / "a", done)
    again = read_archive(tmp_path / "a", words())
    assert again.model.head.weight is again.model.table.weight
    assert torch.equal(again.model.table.weight, done.model.table.weight)


def test_what_a_half_cannot_hold():
    model = nn.Sequential(nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight[0, 0] = 1e5
    with pytest.raises(ModelError, match="float16 does not reach"):
        quantize_weights(model, 16, scheme="float16")
    quantize_weights(model, 16, scheme="bfloat16")


@pytest.mark.parametrize("settings", [{"bits": 8}, {"bits": 16, "method": "mse"}])
def test_settings_that_do_not_go_together(settings):
    with pytest.raises(InputError, match="Give 16 bits"):
        quantize_weights(nn.Sequential(nn.Linear(2, 2)), scheme="float16", **settings)


def test_bytes_of_another_shape_are_refused():
    done = quantize_weights(nn.Sequential(nn.Linear(2, 2)), 16, scheme="float16")
    assert done.plan is not None
    weight = replace(done.plan.weights["0.weight"], shape=(3, 2))
    with pytest.raises(InputError, match="8 bytes of 16 bits"):
        dequantize_layer_weights(weight)
