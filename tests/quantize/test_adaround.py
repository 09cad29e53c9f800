"""Learned rounding: never worse than rounding to nearest on its samples, near the best of all roundings where few."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from tinypress.errors import DataError, ModelError
from tinypress.quantize import quantize_weights
from tinypress.quantize.adaround import adaround_rows
from tinypress.quantize.inputs import paired_rows, patches
from tinypress.quantize.rows import Grid, quantize_rows, real_rows, whole_range
from tinypress.task import Split


def correlated(places: int, width: int, seed: int = 0) -> Tensor:
    """Inputs as layers have them: positive, and alike in all columns."""
    draw = torch.Generator().manual_seed(seed)
    return torch.relu(
        torch.randn(places, 1, generator=draw) + 0.4 * torch.randn(places, width, generator=draw)
    )


def squared(w_CK: Tensor, real_CK: Tensor, x_NK: Tensor) -> float:
    return float(((x_NK @ (real_CK - w_CK).T) ** 2).mean())


@pytest.mark.parametrize(
    ("bits", "group_size", "scheme", "left"),
    [
        (3, None, "symmetric", 0.5),
        (4, 4, "symmetric", 0.7),
        (2, 4, "affine", 0.9),
    ],  # 2 of 4 lie on the range's ends
)
def test_the_outputs_are_nearer_than_those_of_rounding_to_nearest(
    bits: int, group_size: int | None, scheme: str, left: float
) -> None:
    grid = Grid(bits, scheme, group_size)  # type: ignore[arg-type]
    x = correlated(512, 16)
    w = torch.randn(6, 16, generator=torch.Generator().manual_seed(1))
    w[0, 3] = 0.0
    q, scale, zero = adaround_rows("here", w[None], (x @ w.T)[None], x[None], grid)
    real = real_rows(q, scale, zero, group_size)
    nearest = real_rows(*quantize_rows("here", w, grid, whole_range), group_size)
    assert squared(w, real, x) < left * squared(w, nearest, x)
    assert real[0, 3] == 0
    # each weight went up or down by less than a step
    steps = scale.view(6, -1).repeat_interleave(group_size or 16, 1)
    inside = (nearest.abs() < nearest.abs().amax()) & (w != 0)
    assert bool(((real - w).abs() <= steps + 1e-6)[inside].all())


def test_it_is_near_the_best_of_all_roundings() -> None:
    grid = Grid(3)
    x, w = correlated(256, 8), torch.randn(1, 8, generator=torch.Generator().manual_seed(2))
    q, scale, zero = adaround_rows("here", w[None], (x @ w.T)[None], x[None], grid)
    found = squared(w, real_rows(q, scale, zero, None), x)
    floor = torch.floor(w / scale)
    everything = [
        squared(w, (floor + torch.tensor(up)).clamp(-3, 3) * scale, x)
        for up in itertools.product((0.0, 1.0), repeat=8)
    ]
    assert found <= sorted(everything)[31]  # of 256


def test_it_makes_good_what_the_layers_before_it_did() -> None:
    """Against float outputs on float inputs, the inputs of the quantized network being 10 % too large."""
    x, w = correlated(512, 16), torch.rand(4, 16, generator=torch.Generator().manual_seed(3)) + 0.5
    made = x @ w.T
    q, scale, zero = adaround_rows("here", w[None], made[None], 1.1 * x[None], Grid(4))
    real = real_rows(q, scale, zero, None)
    plain = real_rows(*quantize_rows("here", w, Grid(4), whole_range), None)
    assert ((1.1 * x @ real.T - made) ** 2).mean() < 0.2 * ((1.1 * x @ plain.T - made) ** 2).mean()


def test_nothing_is_learnt_from_nothing() -> None:
    w = torch.randn(4, 8)
    q, *_ = adaround_rows("here", w[None], torch.zeros(1, 8, 4), torch.zeros(1, 8, 8), Grid(4))
    assert torch.equal(q, quantize_rows("here", w, Grid(4), whole_range)[0])
    with pytest.raises(ModelError, match="NaN"):
        adaround_rows("here", w[None] * torch.nan, torch.zeros(1, 8, 4), torch.zeros(1, 8, 8), Grid(4))


def test_both_networks_are_looked_at_in_the_same_places() -> None:
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3, groups=2))
    second = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3, groups=2))
    second.load_state_dict(first.state_dict())
    second[0].weight.data *= 2  # type: ignore[operator]
    second[0].bias.data *= 2  # type: ignore[operator]
    x = torch.randn(20, 3, 8, 8)
    found = paired_rows((first, second), "2", Split((x,), torch.zeros(20)), 100, seed=0)
    assert found is not None
    assert found[0].shape == (2, 100, 18)
    torch.testing.assert_close(2 * found[0], found[1])
    with torch.no_grad():
        everything = patches(first[2], first[:2](x))  # type: ignore[arg-type]
    rows = {tuple(row.tolist()) for row in everything[0]}
    assert all(tuple(row.tolist()) in rows for row in found[0][0])
    assert not first[2]._forward_pre_hooks


def test_a_network_is_rounded_layer_by_layer() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Flatten(),
        nn.Linear(128, 5),
    ).eval()
    x = torch.relu(torch.randn(64, 3, 8, 8) + torch.randn(64, 1, 1, 1))
    samples = Split((x,), torch.arange(64) % 5)
    told: list[int] = []
    rounded = {
        method: quantize_weights(
            model,
            3,
            group_size=None,
            method=method,
            calibration=samples,
            progress=lambda _, done, __: told.append(done),
        )
        for method in ("nearest", "mse", "adaround")
    }
    with torch.no_grad():
        error = {
            method: float((done.model(x) - model(x)).square().mean()) for method, done in rounded.items()
        }
    assert error["adaround"] < 0.7 * min(error["nearest"], error["mse"])
    assert told == 3 * [0, 1, 2]
    again = quantize_weights(model, 3, group_size=None, method="adaround", calibration=samples)
    assert rounded["adaround"].plan is not None
    assert again.plan is not None
    for name, weight in again.plan.weights.items():
        assert torch.equal(weight.packed, rounded["adaround"].plan.weights[name].packed)
    with pytest.raises(DataError, match="'adaround' looks at the inputs"):
        quantize_weights(model, 3, method="adaround")
