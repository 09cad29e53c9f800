"""Scales that are powers of two, of weights and activations: shifts in place of multiplications, in the same file."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tinypress.errors import InputError, RecipeError
from tinypress.facts import QuantizedValue
from tinypress.float_onnx import to_float_onnx
from tinypress.press.step import Quantize
from tinypress.quantize import quantize_layer_weights, quantize_model
from tinypress.quantize.values import _power_of_two
from tinypress.runtimes.onnx import open_onnx
from tinypress.ship import to_onnx
from tinypress.ship.equal import compare_with_reference
from tinypress.task import Split


class Net(nn.Module):
    """Depthwise and residual, with a clamp at 6."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm = nn.BatchNorm2d(8)
        self.point = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu6(self.first(x))
        x = x + self.point(nn.functional.relu6(self.norm(self.depth(x))))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


def data() -> Split:
    x = 3 * torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return Split((x,), torch.arange(64) % 4)


def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def is_power_of_two(scale: float) -> bool:
    return math.frexp(scale)[0] == 0.5


@given(st.floats(1e-30, 1e30), st.integers(0, 255))
def test_a_scale_at_most_doubles_and_nothing_clips(scale: float, zero: int) -> None:
    was = QuantizedValue(float(np.float32(scale)), zero)
    now = _power_of_two(was)
    assert is_power_of_two(now.scale)
    assert was.scale <= now.scale < 2 * was.scale
    for end in (0, 255):
        assert abs(end - now.zero_point) * now.scale >= abs(end - was.zero_point) * was.scale


def test_every_scale_of_a_plan_is_one_and_the_file_computes_its_integers(tmp_path: Path) -> None:
    split = data()
    after = quantize_model(net(), split, (split.inputs[0][:2],), power_of_two=True)
    assert after.plan is not None
    assert len(after.plan.weights) == 4
    assert len(after.plan.values) >= 5
    scales = [float(s) for w in after.plan.weights.values() for s in w.scale]
    assert all(map(is_power_of_two, scales))
    others = {name for name, value in after.plan.values.items() if not is_power_of_two(value.scale)}
    assert others == {"relu6"}  # held at 6, and told; what the other sees stays below
    assert {each.text.split()[3] for each in after.notes if each.code == "TP229"} == others
    proto = to_float_onnx(after.model, (split.inputs[0][:2],))
    written = to_onnx(after, (split.inputs[0][:2],))
    layers, _ = compare_with_reference("x", written, proto, after.plan, (split.inputs[0].numpy(),))
    assert sum(layer.differing for layer in layers) == 0
    answers = open_onnx(written.SerializeToString()).run([split.inputs[0].numpy()])
    with torch.no_grad():
        due = net()(split.inputs[0]).numpy()
    assert np.abs(answers - due).max() < 0.1 * np.abs(due).max()
    usual = quantize_model(net(), split, (split.inputs[0][:2],))
    assert not all(is_power_of_two(value.scale) for value in usual.plan.values.values())


def test_what_does_not_go_with_fixed_scales_is_refused() -> None:
    split = data()
    example = (split.inputs[0][:2],)

    def own(layer: nn.Module, bits: int = 8, *, scheme: str = "symmetric", per_channel: bool = True):
        return quantize_layer_weights(layer, bits, scheme=scheme, per_channel=per_channel)

    with pytest.raises(InputError, match="engine's own"):
        quantize_model(net(), split, example, power_of_two=True, quantize=own)
    with pytest.raises(InputError, match="batch_norm changes the scales"):
        quantize_model(net(), split, example, power_of_two=True, batch_norm=split)
    with pytest.raises(RecipeError, match="power_of_two fixes scales"):
        Quantize(power_of_two=True, batch_norm=True)
