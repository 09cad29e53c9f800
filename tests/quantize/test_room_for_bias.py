"""Channels whose weights are tiny beside their bias: the bias fits 32 bits, and the file computes what it should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tinypress.errors import ModelError
from tinypress.facts import QuantizedValue
from tinypress.float_onnx import to_float_onnx
from tinypress.quantize import quantize_layer_weights, quantize_model
from tinypress.quantize.bias import bias_integers
from tinypress.runtimes.onnx import open_onnx
from tinypress.ship import quantize_onnx, write_onnx
from tinypress.task import Split

TINY = [1e-4, 1e-6, 1e-10, 1e-30]


class Net(nn.Module):
    def __init__(self, conv: bool) -> None:
        super().__init__()
        self.first = nn.Conv1d(8, 8, 1) if conv else nn.Linear(8, 8)
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x[..., None]).squeeze(-1) if isinstance(self.first, nn.Conv1d) else self.first(x)
        logits: Tensor = self.last(torch.relu(y))
        return logits


def net(share: float, conv: bool = False, all_of_it: bool = False) -> Net:
    torch.manual_seed(0)
    model = Net(conv).eval()
    with torch.no_grad():
        rows = slice(None) if all_of_it else slice(0, 1)
        model.first.weight[rows] *= share
        model.first.bias[0] = 1.0
    return model


def data() -> Split:
    return Split((torch.randn(64, 8, generator=torch.Generator().manual_seed(1)),), torch.arange(64) % 3)


@pytest.mark.parametrize("power_of_two", [False, True])
@pytest.mark.parametrize("conv", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("share", TINY)
def test_the_file_computes_what_the_network_does(
    share: float, per_channel: bool, conv: bool, power_of_two: bool, tmp_path: Path
) -> None:
    model, split = net(share, conv, all_of_it=not per_channel), data()
    settings = {"per_channel": per_channel, "power_of_two": power_of_two}
    after = quantize_model(model, split, (split.inputs[0][:2],), **settings)
    path = tmp_path / "net.onnx"
    write_onnx(path, after, (split.inputs[0][:2],), check=split.inputs)
    with torch.no_grad():
        due = model(split.inputs[0]).numpy()
        simulated = after.model(split.inputs[0]).numpy()
    answers = open_onnx(path).run([split.inputs[0].numpy()])
    assert np.abs(answers - due).max() < 0.02 * np.abs(due).max()
    assert np.abs(simulated - due).max() < 0.02 * np.abs(due).max()
    told = [note.layer for note in after.notes if note.code == "TP233"]
    assert told == (["first"] if share < 1e-5 else [])
    if share < 1e-5:
        scales = after.plan.weights["first.weight"].scale
        assert float(scales[0]) > 1e-10  # a bias of 1 takes 30 bits


def test_a_file_of_floats_is_quantized_so_too(tmp_path: Path) -> None:
    model, split = net(1e-10), data()
    source, target = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    source.write_bytes(to_float_onnx(model, (split.inputs[0][:2],)).SerializeToString())
    quantize_onnx(source, target, split)
    with torch.no_grad():
        due = model(split.inputs[0]).numpy()
    assert np.abs(open_onnx(target).run([split.inputs[0].numpy()]) - due).max() < 0.02 * np.abs(due).max()


def test_a_bias_beyond_32_bits_is_no_silent_clip() -> None:
    weight = quantize_layer_weights(net(1e-10).first)
    with pytest.raises(ModelError, match="the bias 1 of channel 0 is beyond 32 bits"):
        bias_integers(np.ones(8, np.float32), QuantizedValue(0.01, 128), weight)
