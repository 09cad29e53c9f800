"""The bootstrap: groups stay whole, models are paired, and the intervals cover what they claim to."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinypress.errors import DataError, InputError
from tinypress.measure.metrics import METRICS, NamedMetric
from tinypress.measure.resample import bootstrap, paired_bootstrap, percentiles, resampled

ACCURACY, MAE, R2 = (next(m for m in METRICS if m.name == name) for name in ("accuracy", "mae", "r2"))


def scores(right):
    """Outputs [N, 2] and targets [N] of a model that is right where ``right`` says."""
    right = torch.as_tensor(right, dtype=torch.int64)
    return torch.eye(2)[right], torch.ones(len(right), dtype=torch.int64)


@pytest.mark.parametrize("metric", [m for m in METRICS if m.per_sample], ids=lambda m: m.name)
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 99), count=st.integers(12, 40), grouped=st.booleans())
def test_the_fast_way_equals_computing_the_metric_on_each_resample(metric, seed, count, grouped):
    if metric.name == "retrieval_at_1":
        return  # not the same by intent: the gallery stays whole, only the queries are drawn
    generator = torch.Generator().manual_seed(seed)
    labelled = metric.name in {"accuracy", "macro_f1"}
    draw = torch.randn(count, 3, generator=generator)
    targets = torch.randint(3, (count,), generator=generator) if labelled else draw
    outputs = [torch.randn(count, 3, generator=generator) for _ in range(2)]
    groups = torch.arange(count) % 5 * 7 - 3 if grouped else None
    fast = resampled(outputs, targets, groups, metric, seed, 30)
    slow = resampled(outputs, targets, groups, replace(metric, per_sample=None), seed, 30)
    assert fast.shape == (30, 2)
    np.testing.assert_allclose(fast, slow, rtol=1e-9)


def test_r2_is_undefined_on_a_resample_of_equal_targets_despite_rounding():
    targets = torch.tensor([0.1, 0.7])
    with pytest.raises(InputError, match="infinite on"):
        resampled((targets + 0.3,), targets, None, R2, 0)


def test_groups_are_drawn_whole():
    # A resample of two groups of sizes 1 and 3 holds 2, 4 or 6 samples: never another mixture.
    outputs, targets = torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.zeros(4)
    found = resampled((outputs,), targets, torch.tensor([9, 4, 4, 4]), MAE, 0)[:, 0]
    assert set(found.round(12)) == {0.0, 0.25, 1.0}
    share = [float((found == v).mean()) for v in (0.0, 0.25, 1.0)]
    assert share == pytest.approx([0.25, 0.5, 0.25], abs=0.04)


def test_both_models_get_the_same_resamples():
    noise = 100 * torch.randn(60, generator=torch.Generator().manual_seed(0))
    targets = torch.zeros(60)
    worse = noise.abs() + 2.0
    low, high = paired_bootstrap(noise, worse, targets, None, MAE, seed=1)
    assert (low, high) == pytest.approx((-2.0, -2.0), abs=1e-5)
    assert paired_bootstrap(noise, noise, targets, None, MAE, seed=1) == (0.0, 0.0)


def test_the_seed_decides():
    outputs, targets = scores(np.random.default_rng(0).random(200) < 0.8)
    first = resampled((outputs,), targets, None, ACCURACY, 3)
    assert np.array_equal(first, resampled((outputs,), targets, None, ACCURACY, 3))
    assert not np.array_equal(first, resampled((outputs,), targets, None, ACCURACY, 4))
    assert len(first) == 2000


def test_many_samples_are_drawn_in_several_blocks():
    outputs, targets = scores(np.random.default_rng(0).random(3000) < 0.5)
    found = resampled((outputs,), targets, None, ACCURACY, 0, 800)[:, 0]
    assert len(found) == 800
    assert found.std() == pytest.approx((0.25 / 3000) ** 0.5, rel=0.1)


def test_the_interval_of_a_mean_is_the_textbook_one_for_many_samples():
    x = torch.randn(2000, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    low, high = bootstrap(x.abs(), torch.zeros(2000), None, MAE, seed=0)
    arm = 1.96 * float(x.abs().std()) / 2000**0.5
    middle = float(x.abs().mean())
    assert (low, high) == pytest.approx((middle - arm, middle + arm), abs=0.1 * arm)


def test_over_groups_it_covers_the_truth_where_over_samples_it_does_not():
    """Ten recordings of 20 windows that agree: 200 trials against a known truth."""
    generator = np.random.default_rng(7)
    hits = {"groups": 0, "samples": 0}
    groups = torch.arange(10).repeat_interleave(20)
    for seed in range(200):
        of_group = generator.normal(1.0, 0.5, size=10)
        x = torch.from_numpy(np.repeat(of_group, 20) + generator.normal(0, 0.1, 200))
        offset = 100 + x  # far from 0, so that the absolute error is the value
        for name, chosen in (("groups", groups), ("samples", None)):
            low, high = bootstrap(offset, torch.zeros(200, dtype=x.dtype), chosen, MAE, seed, 400)
            hits[name] += low <= 101.0 <= high
    assert 0.91 <= hits["groups"] / 200 <= 0.99
    assert hits["samples"] / 200 < 0.6


def test_the_levels_of_few_units_are_wider_than_plain_percentiles():
    values = np.random.default_rng(0).normal(size=100_000)
    plain = percentiles(values, 10**6)
    few = percentiles(values, 5)
    assert plain == pytest.approx((-1.96, 1.96), abs=0.03)
    assert few[0] < plain[0] - 0.5
    assert few[1] > plain[1] + 0.5


def test_resamples_without_a_value_are_left_out_while_few():
    # 40 samples of which 4 differ: once in 60 draws none of the four is there, and R² is undefined.
    targets = torch.cat([torch.zeros(36), torch.tensor([1.0, 2.0, 3.0, 4.0])])
    found = resampled((targets + 0.1,), targets, None, R2, 0)
    assert 1900 < len(found) < 2000
    assert np.isfinite(found).all()


def test_a_metric_undefined_on_most_resamples_is_refused():
    targets = torch.cat([torch.zeros(39), torch.ones(1)])
    with pytest.raises(
        InputError, match=r"bootstrap\(r2, 40 samples.* is NaN or infinite on \d+ of 2000 resamples"
    ):
        resampled((targets + 0.1,), targets, None, R2, 0)


def test_a_users_function_is_resampled_too():
    spread = NamedMetric("spread", lambda o, t: float((o - t).max() - (o - t).min()), False, "metric")
    x = torch.arange(30.0)
    low, high = bootstrap(x, torch.zeros(30), None, spread, seed=0, resamples=200)
    assert 20 < low < high <= 29


def test_lengths_and_counts_are_checked():
    outputs, targets = scores([1, 0, 1])
    with pytest.raises(DataError, match="differ in length"):
        bootstrap(outputs, targets, torch.tensor([1, 2]), ACCURACY, 0)
    with pytest.raises(InputError, match="resamples=0"):
        bootstrap(outputs, targets, None, ACCURACY, 0, 0)
