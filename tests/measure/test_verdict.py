"""The drop: its sign, unit and interval, and the verdict that follows."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinypress.errors import DataError, InputError
from tinypress.measure.interval import mcnemar_exact, tango, wilson
from tinypress.measure.metrics import METRICS
from tinypress.measure.quality import resolve_metric
from tinypress.measure.verdict import judge, metric_interval, paired_drop, samples_needed

BY_NAME = {m.name: m for m in METRICS}
ACCURACY = BY_NAME["accuracy"]


def pair(both, b, c, neither):
    """Outputs of baseline and candidate, and targets, with these counts of right answers."""
    was = torch.tensor([1] * both + [1] * b + [0] * c + [0] * neither)
    now = torch.tensor([1] * both + [0] * b + [1] * c + [0] * neither)
    return torch.eye(2)[was], torch.eye(2)[now], torch.ones(len(was), dtype=torch.int64)


def drop(both, b, c, neither, tolerance=1.0, groups=None):
    return paired_drop(*pair(both, b, c, neither), groups, ACCURACY, tolerance, seed=0)


def test_a_worse_candidate_has_a_positive_drop_in_points():
    found = drop(1, 7, 1, 12)
    assert found.value == pytest.approx(100 * 6 / 21)
    assert (found.low, found.high) == pytest.approx((2.6, 51.7), abs=0.05)
    assert found.unit == "points"
    assert found.mcnemar_p == pytest.approx(0.0703125)
    assert "Tango" in found.method


@given(st.tuples(*[st.integers(0, 60)] * 4).filter(lambda t: sum(t) > 0))
def test_independent_samples_get_tangos_interval(counts):
    both, b, c, neither = counts
    found = drop(*counts)
    low, high = tango(b, c, sum(counts))
    assert (found.low, found.high) == pytest.approx((100 * low, 100 * high), abs=1e-9)
    assert found.low <= found.value <= found.high
    assert found.mcnemar_p == mcnemar_exact(b, c)
    mirrored = drop(both, c, b, neither)
    assert mirrored.value == pytest.approx(-found.value)
    assert mirrored.high == pytest.approx(-found.low, abs=1e-6)


@pytest.mark.parametrize("name", ["mae", "mse"])
def test_where_lower_is_better_a_larger_error_is_a_positive_drop(name):
    targets = torch.randn(80, generator=torch.Generator().manual_seed(0))
    good, bad = targets + 0.1, targets + 0.5 + 0.01 * targets
    found = paired_drop(good, bad, targets, None, BY_NAME[name], 0.05, seed=0)
    assert found.value == pytest.approx(0.4 if name == "mae" else 0.24, abs=0.02)
    assert 0.05 < found.low < found.value < found.high
    assert (found.verdict, found.unit, found.mcnemar_p) == ("beyond", "metric", None)
    back = paired_drop(bad, good, targets, None, BY_NAME[name], 0.05, seed=0)
    assert (back.value, back.low, back.high) == pytest.approx((-found.value, -found.high, -found.low))
    assert back.verdict == "within"


def test_where_higher_is_better_the_sign_is_the_other_way():
    targets = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    bad = targets + torch.randn(60, 8, generator=torch.Generator().manual_seed(1))
    found = paired_drop(targets, bad, targets, None, BY_NAME["cosine"], 0.0, seed=0)
    assert 0 < found.low <= found.value <= found.high < 1  # metric units: not times 100


def test_macro_f1_is_in_points():
    was, now, targets = pair(30, 20, 0, 10)
    found = paired_drop(was, now, targets, None, BY_NAME["macro_f1"], 1.0, seed=0)
    # One class only: F1 = 2k / (k + n), halved by the class that is predicted though never a target.
    expected = 100 * (2 * 50 / 110 - 2 * 30 / 90) / 2
    assert found.value == pytest.approx(expected)
    assert found.unit == "points"
    assert found.method == "paired bootstrap over samples"


def test_a_users_function_is_in_its_own_unit_and_direction():
    targets = torch.zeros(50)
    errors = resolve_metric(lambda o, t: float((o - t).abs().max()), higher_is_better=False)
    found = paired_drop(targets + 1, targets + 3, targets, None, errors, 1.0, seed=0)
    assert (found.value, found.unit, found.verdict) == (2.0, "metric", "beyond")


def test_groups_widen_the_interval_of_samples_that_agree():
    # 20 recordings of 10 windows; in three of them the candidate loses every window.
    groups = torch.arange(20).repeat_interleave(10)
    was = torch.eye(2)[torch.ones(200, dtype=torch.int64)]
    now = torch.eye(2)[(groups >= 3).long()]
    targets = torch.ones(200, dtype=torch.int64)
    grouped = paired_drop(was, now, targets, groups, ACCURACY, 1.0, seed=0)
    single = paired_drop(was, now, targets, None, ACCURACY, 1.0, seed=0)
    assert grouped.value == single.value == pytest.approx(15.0)
    assert grouped.low < single.low - 5
    assert grouped.high > single.high + 5
    assert (single.verdict, grouped.verdict) == ("beyond", "cannot tell")
    assert grouped.mcnemar_p is None
    assert "over groups" in grouped.method


@settings(deadline=None, max_examples=25)
@given(st.tuples(*[st.integers(0, 30)] * 4).filter(lambda t: sum(t) > 1), st.integers(1, 12))
def test_groups_never_narrow_it_below_tango(counts, group_count):
    n = sum(counts)
    groups = torch.arange(n) % group_count  # windows dealt out: groups that differ less than samples do
    found = drop(*counts, groups=groups)
    low, high = tango(counts[1], counts[2], n)
    assert found.low <= 100 * low + 1e-9
    assert found.high >= 100 * high - 1e-9


def test_equal_models_are_not_called_certain():
    groups = torch.arange(10).repeat_interleave(5)
    found = drop(40, 0, 0, 10, groups=groups)
    assert found.value == 0.0
    assert found.high > 5  # 50 samples cannot rule out a few points
    assert found.verdict == "cannot tell"


@pytest.mark.parametrize("name", ["accuracy", "cosine"])
def test_a_single_group_gives_no_verdict(name):
    if name == "accuracy":
        was, now, targets = pair(500, 0, 0, 0)
    else:
        was = now = targets = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    found = paired_drop(was, now, targets, torch.zeros(500), BY_NAME[name], 2.0, seed=0)
    assert found.value == pytest.approx(0.0)
    assert found.verdict == "cannot tell"
    assert found.samples_needed is None


def test_the_verdict_reads_the_right_end():
    assert judge(-1.0, 1.0, 1.0) == "within"  # the upper end may lie on the tolerance
    assert judge(-1.0, 1.0001, 1.0) == "cannot tell"
    assert judge(1.0, 2.0, 1.0) == "cannot tell"  # the lower end must be above it
    assert judge(1.0001, 2.0, 1.0) == "beyond"
    assert judge(-3.0, -2.0, 0.0) == "within"


@pytest.mark.parametrize("tolerance", [0.0, 0.5, 3.0])
def test_as_many_samples_as_estimated_do_settle_it(tolerance):
    counts = (170, 12, 9, 9)  # a drop of 1.5 points in 200 samples
    found = drop(*counts, tolerance=tolerance)
    assert found.verdict == "cannot tell"
    assert found.samples_needed is not None
    times = found.samples_needed / 200
    more = [round(1.1 * times * k) for k in counts]
    fewer = [round(0.8 * times * k) for k in counts]
    assert drop(*more, tolerance=tolerance).verdict == ("within" if tolerance > 1.5 else "beyond")
    assert drop(*fewer, tolerance=tolerance).verdict == "cannot tell"


def test_no_number_of_samples_is_named_where_the_value_is_on_the_tolerance():
    assert drop(170, 12, 10, 8, tolerance=1.0).samples_needed is None
    assert samples_needed(1.0, 0.0, 2.0, 1.0 + 1e-9, 100) is None
    assert samples_needed(1.0, 0.0, 2.0, 1.0 + 1e-2, 100) == pytest.approx(1_000_000, abs=2)
    assert samples_needed(1.0, 0.0, 2.0, 1.0 + 1e-4, 100) is None  # a thousand million


def test_the_arm_that_counts_is_the_one_towards_the_tolerance():
    assert samples_needed(1.0, -9.0, 3.0, 2.0, 100) == 400  # above: 2 long, to come down to 1
    assert samples_needed(1.0, -2.0, 9.0, 0.0, 100) == 900  # below: 3 long


def test_a_settled_verdict_names_no_number_of_samples():
    assert drop(9990, 1, 1, 8).verdict == "within"
    assert drop(9990, 1, 1, 8).samples_needed is None


def test_a_proportions_own_interval_is_wilsons_and_grows_with_groups():
    was, _, targets = pair(80, 0, 0, 20)
    assert metric_interval(was, targets, None, ACCURACY, 0) == wilson(80, 100)
    dealt = metric_interval(was, targets, torch.arange(100) % 5, ACCURACY, 0)
    assert dealt[0] <= wilson(80, 100)[0]
    assert dealt[1] >= wilson(80, 100)[1]
    whole = metric_interval(was, targets, torch.arange(100) // 10, ACCURACY, 0)
    assert whole[1] - whole[0] > 1.5 * (wilson(80, 100)[1] - wilson(80, 100)[0])
    assert 0 <= whole[0] < 0.8 < whole[1] <= 1


def test_another_metrics_own_interval_holds_its_value():
    x = torch.randn(40, generator=torch.Generator().manual_seed(0)).exp()
    low, high = metric_interval(x, torch.zeros(40), None, BY_NAME["mse"], 0)
    assert low < float(x.square().mean()) < high


def test_the_same_seed_gives_the_same_drop():
    generator = np.random.default_rng(0)
    was, now, targets = (torch.from_numpy(generator.normal(size=(30, 2))) for _ in range(3))
    one, two = (paired_drop(was, now, targets, None, BY_NAME["r2"], 1.0, seed=5) for _ in range(2))
    assert one == two
    assert one != paired_drop(was, now, targets, None, BY_NAME["r2"], 1.0, seed=6)


@pytest.mark.parametrize("tolerance", [math.nan, math.inf, -1.0])
def test_tolerances_that_mean_nothing_are_refused(tolerance):
    with pytest.raises(InputError, match="the tolerance is"):
        drop(5, 1, 1, 1, tolerance=tolerance)


def test_outputs_of_two_shapes_are_refused():
    was, now, targets = pair(5, 1, 1, 1)
    with pytest.raises(DataError, match=r"baseline's outputs are \(8, 2\), the candidate's \(7, 2\)"):
        paired_drop(was, now[:-1], targets, None, ACCURACY, 1.0, seed=0)
