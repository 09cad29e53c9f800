"""Fake quantization: the plan's arithmetic forward, the papers' gradients backward."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tinypress.errors import ModelError
from tinypress.facts import QuantizedValue
from tinypress.quantize.affine import integer_range, to_integers, to_real
from tinypress.quantize.fake import fake_quantize, fake_quantize_learned
from tinypress.quantize.fake_value import FakeValue
from tinypress.quantize.fake_weight import FakeWeight
from tinypress.quantize.layer import dequantize_layer_weights, quantize_layer_weights
from tinypress.quantize.rows import Grid

Scheme = Literal["symmetric", "affine"]


@given(
    st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=20),
    st.floats(2**-6, 2, width=32),
    st.integers(2, 8),
    st.sampled_from(["symmetric", "affine"]),
    st.integers(0, 3),
)
def test_forward_is_the_arithmetic_of_the_plan(
    numbers: list[float], step: float, bits: int, scheme: Scheme, zero: int
) -> None:
    x, scale = torch.tensor(numbers), torch.tensor([step])
    zero_point = torch.tensor([zero if scheme == "affine" else 0], dtype=torch.int32)
    expected = to_real(to_integers(x, scale, zero_point, bits, scheme), scale, zero_point)
    assert torch.equal(fake_quantize(x, scale, zero_point, bits, scheme), expected)
    assert torch.equal(fake_quantize_learned(x, scale, zero_point, bits, scheme, 7), expected)


def test_the_gradient_goes_straight_through_but_where_values_are_clamped() -> None:
    x = torch.tensor([-9.0, -7.4, -0.3, 0.0, 6.4, 7.4, 7.6], requires_grad=True)
    fake_quantize(x, torch.ones(1), torch.zeros(1, dtype=torch.int32), 4, "symmetric").sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 1, 1, 0]


@pytest.mark.parametrize(("scheme", "zero"), [("symmetric", 0), ("affine", 5)])
def test_the_steps_gradient_is_that_of_lsq(scheme: Scheme, zero: int) -> None:
    least, most = integer_range(4, scheme)
    low, high = least - zero, most - zero
    scale = torch.tensor([0.5], requires_grad=True)
    ratios = torch.tensor([low - 3.0, low + 0.2, -0.7, 0.4, 2.6, high - 0.1, high + 2.0])
    x = (ratios * 0.5).requires_grad_()
    zero_point = torch.tensor([zero], dtype=torch.int32)
    weights = torch.arange(1.0, 8.0)
    (fake_quantize_learned(x, scale, zero_point, 4, scheme, 11) * weights).sum().backward()
    # Esser et al. 2020, eq. 3, by hand, and the gradient's scale of section 2.2
    by_hand = [low, -0.2, -0.3, -0.4, 0.4, 0.1, high]
    expected = sum(w * g for w, g in zip(weights.tolist(), by_hand, strict=True)) / math.sqrt(11 * most)
    assert scale.grad is not None
    assert x.grad is not None
    assert scale.grad.item() == pytest.approx(expected, rel=1e-4)
    assert x.grad.tolist() == [0, 2, 3, 4, 5, 6, 0]


@pytest.mark.parametrize("group_size", [None, 4])
def test_each_channel_or_group_learns_its_own_step(group_size: int | None) -> None:
    torch.manual_seed(0)
    weight = torch.randn(3, 2, 5)  # ten weights a row: the last group is short
    fake = FakeWeight("here", ("w",), weight, Grid(3, "symmetric", group_size), True)
    assert fake.move.shape == (3 if group_size is None else 9,)
    out = fake(weight)
    out[1].square().sum().backward()
    assert fake.move.grad is not None
    per_row = fake.move.grad.view(3, -1)
    assert bool((per_row[0] == 0).all())
    assert bool((per_row[2] == 0).all())
    assert bool((per_row[1] != 0).any())


@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize("group_size", [None, 4])
@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
def test_what_is_simulated_is_what_is_packed(learned: bool, group_size: int | None, scheme: Scheme) -> None:
    torch.manual_seed(1)
    weight = torch.randn(4, 10)
    weight[0, :3] = 0.0
    fake = FakeWeight("here", ("w",), weight, Grid(3, scheme, group_size), learned)
    if learned:
        with torch.no_grad():
            fake.move.add_(torch.randn(fake.move.shape) / 5)
    weight = weight * 1.3
    packed = fake.packed(weight)
    assert torch.equal(dequantize_layer_weights(packed), fake(weight).detach())
    assert bool((dequantize_layer_weights(packed)[0, :3] == 0).all())


def test_a_step_that_is_not_learnt_is_that_of_the_range_as_it_is_now() -> None:
    layer = nn.Linear(9, 4)
    fake = FakeWeight("here", ("w",), layer.weight.detach(), Grid(4), False)
    with torch.no_grad():
        layer.weight.mul_(3.0)
    ours, plain = fake.packed(layer.weight), quantize_layer_weights(layer, 4)
    assert torch.equal(ours.packed, plain.packed)
    assert torch.equal(ours.scale, plain.scale)


def test_weights_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ModelError, match="NaN"):
        FakeWeight("here", ("w",), torch.tensor([[1.0, math.nan]]), Grid(4), True)


@pytest.mark.parametrize("learned", [True, False])
def test_an_activation_begins_where_calibration_put_it(learned: bool) -> None:
    start = QuantizedValue(0.03, 41)
    fake = FakeValue("x", ("x",), start, learned)
    assert fake.decided().zero_point == 41
    assert fake.decided().scale == pytest.approx(0.03)
    x = torch.linspace(-3, 12, 50).view(5, 10)
    scale = torch.tensor(fake.decided().scale)
    q = ((x / scale).round() + 41).clamp(0, 255)
    assert torch.equal(fake(x, False), (q - 41) * scale)


def test_a_range_follows_the_batches_only_while_it_observes() -> None:
    fake = FakeValue("x", ("x",), QuantizedValue(1 / 255, 0), False)
    batch = torch.tensor([[-1.0, 5.0]])
    before = fake.decided()
    fake(batch, False)
    assert fake.decided() == before
    fake(batch, True)
    # low = 0.99 * 0 + 0.01 * -1, high = 0.99 * 1 + 0.01 * 5
    assert fake.decided().scale == pytest.approx((1.04 + 0.01) / 255)
    assert fake.decided().zero_point == round(0.01 / (1.05 / 255))


@pytest.mark.parametrize("learned", [True, False])
def test_behind_a_clip_no_integer_stands_for_more_than_its_bound(learned: bool) -> None:
    fake = FakeValue("x", ("x",), QuantizedValue(5.9 / 255, 0), learned, 6.0)
    with torch.no_grad():
        if learned:
            fake.move.add_(1.0)
        else:
            fake.high.fill_(9.0)
    decided = fake.decided()
    assert decided.zero_point == 0
    assert 5.999 < np.float32(decided.scale) * np.float32(255) <= 6.0  # as the runtime reckons
    assert FakeValue("x", ("x",), QuantizedValue(9 / 255, 3), learned, 6.0).decided().scale > 6.1 / 255
