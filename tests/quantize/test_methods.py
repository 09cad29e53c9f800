"""Each way of choosing the integers against what its paper promises, on problems small enough to solve outright."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tinypress.quantize.affine import integer_range
from tinypress.quantize.awq import awq_rows, output_error
from tinypress.quantize.gptq import DAMPING, gptq_rows, inverse_factor
from tinypress.quantize.hqq import half_quadratic, norm_error, shrink
from tinypress.quantize.mse import least_squared_error, squared_error
from tinypress.quantize.rows import Grid, quantize_rows, real_rows, whole_range

SCHEMES = ["symmetric", "affine"]


def random(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(*shape, generator=generator)
    return torch.where(torch.rand(*shape, generator=generator) < 0.02, weight * 8, weight)


def correlated(seed: int, width: int, samples: int = 64) -> Tensor:
    """X X^T of inputs that hang together."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, width, generator=generator) @ torch.randn(width, width, generator=generator)
    x = (x + 2 * x[:, :1]).double()
    return x.T @ x


def real(found: tuple[Tensor, ...], grid: Grid) -> Tensor:
    return real_rows(found[0], found[1], found[2], grid.group_size)


@pytest.mark.parametrize("scheme", SCHEMES)
@settings(max_examples=60, deadline=None)
@given(
    bits=st.integers(2, 8),
    width=st.integers(1, 70),
    group=st.sampled_from([None, 8, 32]),
    power_of_two=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_mse_and_hqq_are_never_worse_than_rounding_by_their_own_measure(
    scheme, bits, width, group, power_of_two, seed
):
    grid, w = Grid(bits, scheme, group, power_of_two), random(seed, 3, width)
    w[:, ::5] = 0
    plain = quantize_rows("", w, grid, whole_range)
    for fit, norm in ((least_squared_error, 2.0), (half_quadratic, 0.7)):
        found = quantize_rows("", w, grid, fit)
        worse = (real(plain, grid) - w).abs().pow(norm).sum(1)
        better = (real(found, grid) - w).abs().pow(norm).sum(1)
        assert bool((better <= worse * (1 + 1e-5)).all())
        assert bool((real(found, grid)[:, ::5] == 0).all())
        least, most = integer_range(bits, scheme)
        assert int(found[0].min()) >= least
        assert int(found[0].max()) <= most
        if power_of_two:
            assert bool((torch.frexp(found[1])[0] == 0.5).all())


def test_mse_clips_an_outlier_and_hqq_gains():
    w = torch.randn(200, 64, generator=torch.Generator().manual_seed(0))
    w[:, 3] = 6.0
    for scheme in SCHEMES:
        grid = Grid(3, scheme)
        low, high = w.amin(1), w.amax(1)
        plain = whole_range(w, low, high, grid)
        tried = least_squared_error(w, low, high, grid)
        assert float(squared_error(w, *tried, grid).sum()) < 0.9 * float(squared_error(w, *plain, grid).sum())
        solved = half_quadratic(w, low, high, grid)
        assert float(norm_error(w, *solved, grid).sum()) < 0.95 * float(norm_error(w, *plain, grid).sum())


def test_mse_finds_the_best_of_its_ranges():
    w = random(3, 6, 16)
    grid = Grid(3, "affine")
    low, high = w.amin(1), w.amax(1)
    found = squared_error(w, *least_squared_error(w, low, high, grid), grid)
    for row in range(6):
        errors = []
        for step in range(52):
            c = 1 - step / 64
            scale, zero = grid.scales(low[row : row + 1] * c, high[row : row + 1] * c)
            q = ((w[row] / scale).round() + zero).clamp(0, 7)
            errors.append(float((((q - zero) * scale) - w[row]).square().sum()))
        assert float(found[row]) == pytest.approx(min(errors), rel=1e-5)


def test_the_shrinkage_by_hand():
    # p = 0.7: 2 - 2**-0.3 / 10, and what is small enough goes to zero
    x = torch.tensor([2.0, -2.0, 0.1, 0.0])
    expected = 2 - 2**-0.3 / 10
    assert shrink(x, 10.0).tolist() == pytest.approx([expected, -expected, 0.0, 0.0])


def naive_gptq(
    w_CK: Tensor, hessian_KK: Tensor, scale_CK: Tensor, zero_CK: Tensor, grid: Grid, order: list[int]
) -> Tensor:
    """Equations 2 and 3 as they stand: the inverse of the free columns' Hessian anew for every column."""
    least, most = integer_range(grid.bits, grid.scheme)
    h = hessian_KK.double().clone()
    h += DAMPING * h.diagonal().mean() * torch.eye(len(h), dtype=torch.float64)
    w, out = w_CK.double().clone(), torch.empty_like(w_CK, dtype=torch.float64)
    was_zero = w_CK == 0
    free = list(order)
    while free:
        column = free[0]
        inverse = torch.linalg.inv(h[free][:, free])
        aimed = w[:, column].masked_fill(was_zero[:, column], 0).float()
        scale, zero = scale_CK[:, column], zero_CK[:, column]
        q = ((aimed / scale).round() + zero).clamp(least, most)
        out[:, column] = q.double()
        back = ((q - zero) * scale).double()
        delta = -(w[:, column] - back) / inverse[0, 0]
        w[:, free] += delta[:, None] * inverse[:, 0]
        free = free[1:]
    return out


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("block", [1, 5, 128])
@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("group", [None, 4])
def test_gptq_is_the_naive_algorithm(scheme, block: int, act_order: bool, group):
    if group is not None and not act_order:
        group = 19  # one group: its scales are those of the start, which the naive algorithm is given
    for seed in range(6):
        w, hessian = random(seed, 7, 19), correlated(seed, 19)
        w[:, ::4] = 0
        grid = Grid(3, scheme, group)
        q, scale, zero = gptq_rows("", w, hessian, grid, act_order=act_order, block=block)
        width = group or 19
        scale_CK = scale.view(7, -1).repeat_interleave(width, 1)[:, :19]
        zero_CK = zero.view(7, -1).repeat_interleave(width, 1)[:, :19]
        order = list(range(19))
        if act_order:
            order = torch.argsort(hessian.diagonal(), descending=True, stable=True).tolist()
        assert torch.equal(q.double(), naive_gptq(w, hessian, scale_CK, zero_CK, grid, order))
        assert bool((real_rows(q, scale, zero, grid.group_size)[:, ::4] == 0).all())


def test_gptq_fits_a_group_when_it_begins():
    for block in (1, 8, 128):
        w, hessian = random(1, 5, 22), correlated(1, 22)
        grid = Grid(3, "affine", 4)
        q, scale, zero = gptq_rows("", w, hessian, grid, block=block)
        h = hessian + DAMPING * hessian.diagonal().mean() * torch.eye(22, dtype=torch.float64)
        moved = w.double().clone()
        for column in range(22):
            if column % 4 == 0:
                here = moved[:, column : column + 4].float()
                expected = grid.scales(here.amin(1), here.amax(1))
                assert torch.allclose(scale.view(5, 6)[:, column // 4], expected[0], rtol=1e-6)
                assert torch.equal(zero.view(5, 6)[:, column // 4], expected[1])
            free = list(range(column, 22))
            inverse = torch.linalg.inv(h[free][:, free])
            s, z = scale.view(5, 6)[:, column // 4], zero.view(5, 6)[:, column // 4]
            back = ((q[:, column].float() - z) * s).double()
            moved[:, free] -= ((moved[:, column] - back) / inverse[0, 0])[:, None] * inverse[:, 0]


def test_gptq_lies_between_the_optimum_and_rounding():
    grid = Grid(2, "symmetric")
    totals = {"best": 0.0, "gptq": 0.0, "plain": 0.0}
    worse = 0
    for seed in range(150):
        width = 2 + seed % 2
        w, hessian = (
            torch.randn(1, width, generator=torch.Generator().manual_seed(seed)),
            correlated(seed, width),
        )
        q, scale, zero = gptq_rows("", w, hessian, grid, damping=1e-8)
        plain = quantize_rows("", w, grid, whole_range)
        candidates = torch.tensor(list(itertools.product([-1.0, 0.0, 1.0], repeat=width))) * scale
        best = min(output_error(candidate[None] - w, hessian) for candidate in candidates)
        ours = output_error(real((q, scale, zero), grid) - w, hessian)
        rounded = output_error(real(plain, grid) - w, hessian)
        assert best <= ours * (1 + 1e-6)
        worse += ours > rounded * (1 + 1e-6)
        for name, error in (("best", best), ("gptq", ours), ("plain", rounded)):
            totals[name] += error
    assert totals["gptq"] < 0.9 * totals["plain"]
    assert worse < 30


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("group", [None, 32])
def test_gptq_beats_rounding_on_a_layer(act_order: bool, group):
    w, hessian = random(0, 40, 96), correlated(0, 96, 500)
    grid = Grid(4, "symmetric", group)
    found = gptq_rows("", w, hessian, grid, act_order=act_order)
    plain = quantize_rows("", w, grid, whole_range)
    rounded = output_error(real(plain, grid) - w, hessian)
    assert output_error(real(found, grid) - w, hessian) < 0.5 * rounded


def test_the_factor_of_the_inverse_and_dead_inputs():
    hessian = correlated(0, 9)
    hessian[4] = hessian[:, 4] = 0
    upper = inverse_factor(hessian, 0.01)
    damped = hessian.clone()
    damped[4, 4] = 1
    damped += 0.01 * damped.diagonal().mean() * torch.eye(9)
    assert torch.allclose(upper.T @ upper, torch.linalg.inv(damped), atol=1e-12)
    assert torch.equal(upper, upper.triu())
    assert bool(torch.isfinite(inverse_factor(torch.zeros(3, 3), 0.01)).all())
    one = torch.ones(50, 50, dtype=torch.float64) * 1e30  # rank one
    assert bool(torch.isfinite(inverse_factor(one, 0.0)).all())


@pytest.mark.parametrize("scheme", SCHEMES)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), group=st.sampled_from([None, 8]), silent=st.booleans())
def test_awq_is_never_worse_than_rounding_on_its_inputs(scheme, seed, group, silent):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(50, 24, generator=generator) * torch.rand(24, generator=generator).pow(4) * 30
    if silent:
        x[:, 5] = 0
    w = random(seed, 6, 24)
    w[:, ::5] = 0
    grid = Grid(3, scheme, group)
    hessian = (x.T @ x).double()
    q, scale, zero, balance = awq_rows("", w, hessian, x.abs().mean(0), grid)
    plain = quantize_rows("", w, grid, whole_range)
    found = real((q, scale, zero), grid) / balance
    rounded = output_error(real(plain, grid) - w, hessian)
    assert output_error(found - w, hessian) <= rounded * (1 + 1e-6)
    assert bool((found[:, ::5] == 0).all())
    outputs = (x.double() @ (found - w).double().T).square().sum()
    assert float(outputs) == pytest.approx(output_error(found - w, hessian), rel=1e-4)


def test_awq_gains_where_few_channels_are_loud():
    generator = torch.Generator().manual_seed(0)
    loud = torch.ones(64)
    loud[::16] = 30.0
    x = torch.randn(300, 64, generator=generator) * loud
    w, grid = torch.randn(32, 64, generator=generator), Grid(3, "symmetric", 32)
    hessian = (x.T @ x).double()
    q, scale, zero, balance = awq_rows("", w, hessian, x.abs().mean(0), grid)
    rounded = output_error(real(quantize_rows("", w, grid, whole_range), grid) - w, hessian)
    assert output_error(real((q, scale, zero), grid) / balance - w, hessian) < 0.5 * rounded
    assert float(balance.max() * balance.min()) == pytest.approx(1.0, rel=1e-4)
