"""Two graphs side by side: known errors give known ratios, shares and channels."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from tinypress.errors import ModelError
from tinypress.facts import Compressed, QuantPlan
from tinypress.float_onnx import to_float_onnx
from tinypress.measure.side_by_side import MOST, layers_apart, output_snr
from tinypress.quantize import quantize_model
from tinypress.ship.to_onnx import to_onnx
from tinypress.task import Split

EXAMPLE = (torch.zeros(2, 6),)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).eval()


def samples(count: int = 96) -> Split:
    return Split((torch.randn(count, 6, generator=torch.Generator().manual_seed(1)),), torch.zeros(count))


def apart(model, quantized: Compressed, split=None):
    assert quantized.plan is not None
    weights = {
        name: value.detach().numpy()
        for name, value in quantized.model.named_parameters()
        if name in quantized.plan.weights
    }
    split = samples() if split is None else split
    graphs = to_float_onnx(model, EXAMPLE), to_onnx(quantized, EXAMPLE)
    return {x.layer: x for x in layers_apart(*graphs, quantized.plan, weights, split)}


def rounded(x: torch.Tensor, value) -> torch.Tensor:
    return ((x / value.scale).round() + value.zero_point).clamp(0, 255).sub(value.zero_point) * value.scale


def test_the_ratio_of_a_layer_is_that_of_its_rounded_output():
    model, split = network(), samples()
    quantized = quantize_model(model, split, EXAMPLE)
    assert quantized.plan is not None
    of_input, of_first = list(quantized.plan.values.values())[:2]
    found = apart(model, quantized)
    assert list(found) == ["0", "2", "4"]
    (x,) = split.inputs
    with torch.no_grad():
        real = model[:2](x).double()
        seen = rounded(quantized.model[:2](rounded(x, of_input)), of_first).double()
    factors = (real * seen).sum(0) / (seen * seen).sum(0)
    direct = 10 * torch.log10((real**2).sum() / ((real - factors * seen) ** 2).sum())
    assert found["0"].snr_db == pytest.approx(float(direct), abs=0.1)
    assert 20 < found["4"].snr_db < 60


@pytest.mark.slow
def test_a_channel_scaled_by_a_power_of_two_is_the_same_channel():
    model = network()
    moved = copy.deepcopy(model)
    with torch.no_grad():
        moved[0].weight[2] *= 4
        moved[0].bias[2] *= 4
        moved[2].weight[:, 2] /= 4
    plain, scaled = (apart(model, quantize_model(x, samples(), EXAMPLE)) for x in (model, moved))
    assert (
        abs(plain["0"].snr_db - scaled["0"].snr_db) < 8
    )  # not the 2 dB of a channel that is 4 times too large
    assert scaled["0"].snr_db > 25


def test_clipping_and_unused_range_are_those_of_the_plan():
    model = network()
    quantized = quantize_model(model, samples(), EXAMPLE)
    assert quantized.plan is not None

    def with_scale(factor: float) -> Compressed:
        values = {n: dataclasses.replace(v, scale=v.scale * factor) for n, v in quantized.plan.values.items()}
        return dataclasses.replace(quantized, plan=QuantPlan(quantized.plan.weights, values))

    as_it_is, narrow, wide = (apart(model, with_scale(factor)) for factor in (1.0, 0.25, 4.0))
    assert as_it_is["0"].clipped == 0
    assert as_it_is["0"].dead < 0.01
    real = model[:2](samples().inputs[0])
    beyond = (real > real.max() / 4 * 1.01).float().mean()
    assert narrow["0"].clipped == pytest.approx(float(beyond), abs=0.02)
    assert narrow["0"].clipped > 0.05
    assert wide["0"].dead == pytest.approx(0.75, abs=0.01)
    assert wide["0"].snr_db < as_it_is["0"].snr_db - 6
    assert as_it_is["4"].clipped is None  # the output of the network stays float


@pytest.mark.slow
def test_the_widest_channel_is_named():
    model = network()
    with torch.no_grad():
        model[0].weight[3] *= 100
        model[2].weight[:, 3] /= 100
    found = apart(model, quantize_model(model, samples(), EXAMPLE, per_channel=False))
    assert (found["0"].outlier_channel, found["0"].weight_outlier_channel) == (3, 3)
    assert found["0"].weight_outlier > 50
    assert found["0"].weight_snr_db > 20  # the large ones are kept well, and most of the power is theirs
    assert found["2"].snr_db < 25


def test_equal_outputs_have_the_largest_ratio_and_silence_none():
    x = np.ones((2, 3), np.float32)
    assert output_snr(x, x) == pytest.approx(10 * np.log10(MOST))
    assert output_snr(x, x * 0.9) == pytest.approx(20, abs=1e-3)
    assert output_snr(0 * x, x) == 0


def test_graphs_without_a_common_layer_are_refused():
    with pytest.raises(ModelError, match="no layer of the plan"):
        layers_apart(
            to_float_onnx(network(), EXAMPLE), to_float_onnx(network(), EXAMPLE), QuantPlan(), {}, samples()
        )
