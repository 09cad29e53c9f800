"""Intervals over seeds and samples: closed forms, coverage, and the advice that follows from them."""

from __future__ import annotations

import math
from statistics import mean, stdev

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tinypress.errors import DataError, InputError
from tinypress.measure.interval import student_quantile
from tinypress.measure.metrics import NamedMetric
from tinypress.measure.quality import resolve_metric
from tinypress.measure.resample import paired_bootstrap
from tinypress.measure.seeds import both, mean_drop, needed, seed_interval

ACCURACY = resolve_metric("accuracy", True)
MSE = resolve_metric("mse", False)
numbers = st.floats(-100, 100, allow_nan=False)


def answers(right: Tensor) -> Tensor:
    """Logits [N, 2] of a network that is right on class 0 where ``right`` [N] says so."""
    return torch.stack([right.float(), 1 - right.float()], 1)


def drawn(seeds: int, samples: int, share: float, generator: torch.Generator) -> list[Tensor]:
    return [answers(torch.rand(samples, generator=generator) < share) for _ in range(seeds)]


@given(st.lists(numbers, min_size=2, max_size=8))
def test_students_interval(values: list[float]) -> None:
    low, high = seed_interval(values)
    half = student_quantile(0.975, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    assert low == pytest.approx(mean(values) - half, abs=1e-9)
    assert high == pytest.approx(mean(values) + half, abs=1e-9)


def test_students_interval_of_known_numbers() -> None:
    """t at 4 degrees of freedom is 2.776: five values with spread 1 reach 2.776 / √5 to either side."""
    values = [-math.sqrt(2), 0.0, 0.0, 0.0, math.sqrt(2)]
    assert seed_interval(values) == pytest.approx((-1.2415, 1.2415), abs=2e-4)
    assert seed_interval([3.0]) == (3.0, 3.0)
    for wrong in ([], [1.0, math.nan]):
        with pytest.raises(InputError):
            seed_interval(wrong)


@given(numbers, *(st.floats(0, 50) for _ in range(4)))
def test_two_intervals_join_as_their_variances_add(
    value: float, a: float, b: float, c: float, d: float
) -> None:
    low, high = both(value, (value - a, value + b), (value - c, value + d))
    assert (value - low) ** 2 == pytest.approx(a * a + c * c, rel=1e-6, abs=1e-6)
    assert (high - value) ** 2 == pytest.approx(b * b + d * d, rel=1e-6, abs=1e-6)


def test_one_seed_is_the_bootstrap_and_gives_no_verdict() -> None:
    generator = torch.Generator().manual_seed(0)
    was, now = drawn(1, 400, 0.9, generator), drawn(1, 400, 0.6, generator)
    targets = torch.zeros(400, dtype=torch.long)
    found = mean_drop(was, now, targets, None, ACCURACY, 1.0, 0)
    low, high = paired_bootstrap(was[0], now[0], targets, None, ACCURACY, 0)
    assert (found.low, found.high) == pytest.approx((100 * low, 100 * high))
    assert (found.verdict, found.spread, found.seeds_needed) == ("cannot tell", None, None)


def test_equal_seeds_add_nothing_and_unequal_ones_widen() -> None:
    generator = torch.Generator().manual_seed(1)
    was = drawn(1, 300, 0.9, generator) * 4
    now = drawn(1, 300, 0.85, generator) * 4
    targets, groups = torch.zeros(300, dtype=torch.long), torch.arange(300) // 10
    same = mean_drop(was, now, targets, groups, ACCURACY, 1.0, 0)
    single = paired_bootstrap(was[0], now[0], targets, groups, ACCURACY, 0)
    assert same.seeds_low == same.seeds_high == same.value
    assert (same.low, same.high) == pytest.approx(
        (min(100 * single[0], same.low), max(100 * single[1], same.high))
    )
    other = mean_drop(was, [*now[:2], *drawn(2, 300, 0.7, generator)], targets, groups, ACCURACY, 1.0, 0)
    assert other.high - other.low > math.hypot(other.seeds_high - other.seeds_low, 0) * 0.999
    assert other.spread == pytest.approx(stdev(other.values))


def test_no_difference_in_any_sample_still_leaves_room() -> None:
    targets = torch.zeros(100, dtype=torch.long)
    outputs = [answers(torch.ones(100))] * 3
    found = mean_drop(outputs, outputs, targets, None, ACCURACY, 1.0, 0)
    assert found.value == 0
    assert found.high == pytest.approx(100 * 3.8415 / (100 + 3.8415), abs=1e-3)
    assert found.verdict == "cannot tell"


def test_a_metric_that_is_better_when_lower_points_the_same_way() -> None:
    generator = torch.Generator().manual_seed(2)
    targets = torch.randn(80, 1, generator=generator)
    was = [targets + 0.1 * torch.randn(80, 1, generator=generator) for _ in range(3)]
    now = [targets + 0.9 * torch.randn(80, 1, generator=generator) for _ in range(3)]
    found = mean_drop(was, now, targets, None, MSE, 0.05, 0)
    assert found.value == pytest.approx(
        mean(float(((b - targets) ** 2).mean() - ((a - targets) ** 2).mean()) for a, b in zip(was, now, strict=True)),
        rel=1e-5,
    )  # fmt: skip
    assert found.verdict == "beyond"
    assert found.unit == "metric"


def test_the_interval_covers_the_truth_where_seeds_and_samples_are_both_luck() -> None:
    """Difficulty of a sample is shared by the seeds, each seed has an offset: 95 % of intervals hold the true drop."""
    generator, seeds, samples, truth = np.random.default_rng(0), 5, 60, 0.1
    hits = 0
    for trial in range(120):
        hard = generator.normal(0, 0.5, samples)
        targets = torch.zeros(samples, 1)
        offsets = generator.normal(0, 0.06, seeds)
        now = [
            torch.from_numpy(truth + hard + o + generator.normal(0, 0.2, samples)).reshape(-1, 1)
            for o in offsets
        ]
        was = [torch.zeros(samples, 1, dtype=torch.float64)] * seeds
        plain = NamedMetric("mean", lambda x, y: -float(x.mean()), True, "metric", lambda x, y: -x[:, 0])
        found = mean_drop(was, now, targets, None, plain, 0.2, trial)
        hits += found.low <= truth <= found.high
    assert 108 <= hits <= 120  # 95 % is 114, the spread of that count 2.4


@given(
    value=st.floats(-5, 5), a=st.floats(0.01, 5), b=st.floats(0.01, 5), tolerance=st.floats(0, 5),
    seeds=st.integers(2, 10),
)  # fmt: skip
@settings(max_examples=200)
def test_so_many_seeds_would_do(value: float, a: float, b: float, tolerance: float, seeds: int) -> None:
    arm_seeds, arm_samples = (value - a, value + a), (value - b, value + b)
    k, n = needed(value, arm_seeds, arm_samples, tolerance, seeds, 1000)
    distance = abs(value - tolerance)
    if k is not None:
        assert math.hypot(a * math.sqrt(seeds / k), b) <= distance * (1 + 1e-9)
        fewer = k - 1
        assert fewer == seeds or math.hypot(a * math.sqrt(seeds / fewer), b) > distance * (1 - 1e-9)
    elif b >= distance:
        assert n is None or a < distance
    if n is not None:
        assert math.hypot(a, b * math.sqrt(1000 / n)) <= distance * (1 + 1e-9)


def test_what_does_not_fit_is_refused() -> None:
    targets = torch.zeros(10, dtype=torch.long)
    one = [answers(torch.ones(10))]
    for was, now, tolerance, error in (
        ([], [], 1.0, DataError),
        (one, one * 2, 1.0, DataError),
        (one, [answers(torch.ones(9))], 1.0, DataError),
        (one, one, -1.0, InputError),
        (one, one, math.nan, InputError),
    ):
        with pytest.raises(error, match="mean_drop"):
            mean_drop(was, now, targets, None, ACCURACY, tolerance, 0)
