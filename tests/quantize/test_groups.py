"""Groups of weights that share a scale, and scales that are powers of two."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import tinypress.quantize.rows as rows_module
from quantize.test_layer import integers, layer_with, plainly
from tinypress.errors import InputError
from tinypress.quantize import dequantize_layer_weights, quantize_layer_weights

SCHEMES = ["symmetric", "affine"]


@pytest.mark.parametrize("scheme", SCHEMES)
@settings(max_examples=60, deadline=None)
@given(
    channels=st.integers(1, 5),
    width=st.integers(1, 40),
    group=st.sampled_from([1, 2, 3, 8, 32, 64]),
    bits=st.integers(2, 8),
    seed=st.integers(0, 1000),
)
def test_each_group_is_quantized_as_if_it_were_alone(scheme, channels, width, group, bits, seed):
    weight = torch.randn(channels, width, generator=torch.Generator().manual_seed(seed))
    quantized = quantize_layer_weights(layer_with(weight), bits, scheme=scheme, group_size=group)
    q, back = integers(quantized), dequantize_layer_weights(quantized)
    number = 0
    for row in range(channels):
        for start in range(0, width, group):
            part = slice(start, start + group)
            scale, zero_point, expected = plainly(weight[row, part].tolist(), bits, scheme)
            assert quantized.scale[number].item() == scale
            assert quantized.zero_point[number].item() == zero_point
            assert q[row, part].tolist() == expected
            assert torch.equal(back[row, part], (q[row, part].float() - zero_point) * scale)
            number += 1
    assert quantized.scale.shape == quantized.zero_point.shape == (number,)
    assert quantized.scales == number


@settings(max_examples=60, deadline=None)
@given(
    bits=st.integers(2, 8),
    scheme=st.sampled_from(SCHEMES),
    group=st.sampled_from([None, 4, 7]),
    power_of_two=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_the_error_is_at_most_half_a_step_where_nothing_clips(bits, scheme, group, power_of_two, seed):
    weight = torch.randn(3, 25, generator=torch.Generator().manual_seed(seed))
    quantized = quantize_layer_weights(
        layer_with(weight), bits, scheme=scheme, group_size=group, power_of_two=power_of_two
    )
    width = 25 if group is None else group
    scale = quantized.scale.view(3, -1).repeat_interleave(width, 1)[:, :25]
    error = (dequantize_layer_weights(quantized) - weight).abs()
    q = integers(quantized)
    most = q == (2**bits - 1 if scheme == "affine" else 2 ** (bits - 1) - 1)
    least = q == (0 if scheme == "affine" else -(2 ** (bits - 1)) + 1)
    inside = ~(most | least)
    assert bool((error <= scale * 0.5001)[inside].all())
    assert bool((error <= scale * 1.0001).all())  # an affine zero point that was rounded clips half a step


def test_powers_of_two():
    weight = torch.tensor([[7.0, -1.0], [7.1, 0.0], [0.0, 0.0], [3.5, 1.0]])
    quantized = quantize_layer_weights(layer_with(weight), 4, power_of_two=True)
    assert quantized.scale.tolist() == [1.0, 2.0, 1.0, 0.5]
    mantissas, _ = torch.frexp(
        quantize_layer_weights(nn.Linear(64, 9), 3, group_size=16, power_of_two=True).scale
    )
    assert bool((mantissas == 0.5).all())


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(6, 4, 3, groups=2), nn.ConvTranspose1d(4, 6, 3), nn.Embedding(7, 10), nn.Conv1d(3, 5, 1)],
    ids=lambda layer: type(layer).__name__,
)
def test_groups_run_along_the_weights_of_one_channel(layer: nn.Module, scheme):
    quantized = quantize_layer_weights(layer, 4, scheme=scheme, group_size=5)
    axis = 1 if isinstance(layer, nn.ConvTranspose1d) else 0
    assert quantized.axis == axis
    rows = layer.weight.detach().movedim(axis, 0).reshape(layer.weight.shape[axis], -1)
    q = integers(quantized).movedim(axis, 0).reshape(rows.shape)
    alone = quantize_layer_weights(layer_with(rows), 4, scheme=scheme, group_size=5)
    assert torch.equal(q, integers(alone))
    assert torch.equal(quantized.scale, alone.scale)
    back = dequantize_layer_weights(quantized).movedim(axis, 0).reshape(rows.shape)
    assert torch.equal(back, dequantize_layer_weights(alone))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [32, 33, 31])
def test_blocks_do_not_show(scheme, width: int, monkeypatch: pytest.MonkeyPatch):
    layer = nn.Linear(width, 21)
    whole = quantize_layer_weights(layer, 4, scheme=scheme, group_size=8)
    real = dequantize_layer_weights(whole)
    for block in (1, 50, 100):
        monkeypatch.setattr(rows_module, "_BLOCK", block)
        parts = quantize_layer_weights(layer, 4, scheme=scheme, group_size=8)
        for field in ("packed", "scale", "zero_point"):
            assert torch.equal(getattr(parts, field), getattr(whole, field))
        assert torch.equal(dequantize_layer_weights(parts), real)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_zeros_stay_zeros(scheme):
    layer = nn.Linear(100, 7)
    with torch.no_grad():
        layer.weight[:, ::3] = 0
        layer.weight[:, :20].abs_()
    for bits in range(2, 9):
        back = dequantize_layer_weights(quantize_layer_weights(layer, bits, scheme=scheme, group_size=16))
        assert bool((back[:, ::3] == 0).all())


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_layers_without_weights(shape: tuple[int, int]):
    quantized = quantize_layer_weights(layer_with(torch.empty(shape)), 4, group_size=32)
    assert dequantize_layer_weights(quantized).shape == shape
    assert quantized.scale.numel() == quantized.scales == 0


@pytest.mark.parametrize("group", [0, -1, True, 2.0, "32", 2**31])
def test_other_group_sizes_are_refused(group):
    with pytest.raises(InputError, match="group_size is"):
        quantize_layer_weights(nn.Linear(4, 4), 4, group_size=group)


def test_groups_need_channels():
    with pytest.raises(InputError, match="groups are parts of a channel"):
        quantize_layer_weights(nn.Linear(4, 4), 4, group_size=2, per_channel=False)


def test_an_input_scale_divides_the_columns():
    quantized = quantize_layer_weights(nn.Conv1d(4, 6, 3), 4, group_size=5)
    scale = torch.tensor([1.0, 2.0, 0.5, 3.0])
    balanced = replace(quantized, input_scale=scale)
    expected: Tensor = dequantize_layer_weights(quantized) / scale.view(1, 4, 1)
    assert torch.equal(dequantize_layer_weights(balanced), expected)
