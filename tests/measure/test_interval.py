"""Intervals: against published figures, brute force, exact coverage, symmetry and the edges."""

import math
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinypress.errors import InputError
from tinypress.measure.interval import (
    mcnemar_exact,
    median_interval,
    restricted_mle,
    student_quantile,
    tail_share,
    tango,
    wilson,
)

Z = NormalDist().inv_cdf(0.975)


@st.composite
def pairs(draw):
    n = draw(st.integers(1, 400))
    b = draw(st.integers(0, n))
    return b, draw(st.integers(0, n - b)), n


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_newcombes_published_intervals(k, n, low, high):
    assert wilson(k, n) == pytest.approx((low, high), abs=5e-5)
    assert wilson(n - k, n) == pytest.approx((1 - high, 1 - low), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_solves_its_equation(case):
    k, n = case
    for p in wilson(k, n):
        if 0 < p < 1:
            assert (k / n - p) ** 2 == pytest.approx(Z**2 * p * (1 - p) / n, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize(
    ("b", "c", "n", "level", "low", "high"),
    [
        (1, 7, 21, 0.95, -0.517, -0.026),  # airway hyper-responsiveness, Bentur 2009 (Fagerland 2014)
        (
            28,
            25,
            618,
            0.90,
            -0.0148,
            0.0247,
        ),  # the figure of R's PropCIs, whose arguments stand the other way
    ],
)
def test_tango_gives_published_intervals(b, c, n, level, low, high):
    digits = 5e-4 if n == 21 else 5e-5
    assert tango(b, c, n, level) == pytest.approx((low, high), abs=digits)


@given(pairs(), st.floats(-0.99, 0.99))
def test_the_restricted_estimate_has_the_highest_likelihood(case, delta):
    b, c, n = case

    def likelihood(q):
        cells = ((b, q + delta), (c, q), (n - b - c, 1 - 2 * q - delta))
        if any(p < -1e-12 for _, p in cells):
            return -math.inf
        return sum(k * math.log(max(p, 1e-300)) for k, p in cells if k)

    found = likelihood(restricted_mle(b, c, n, delta))
    grid = np.linspace(max(0.0, -delta), (1 - delta) / 2, 400)
    best = max(likelihood(q) for q in grid)
    assert found >= best - 1e-6 * max(1.0, abs(best))


@given(pairs())
def test_tangos_limits_solve_the_score_equation(case):
    b, c, n = case
    for delta, sign in zip(tango(b, c, n), (1, -1), strict=True):
        assert -1 <= delta <= 1
        if abs(delta) < 0.999999:
            variance = n * (2 * restricted_mle(b, c, n, delta) + delta * (1 - delta))
            assert (b - c - n * delta) / math.sqrt(variance) == pytest.approx(sign * Z, rel=1e-6)


@given(pairs())
def test_tango_mirrors_when_the_models_swap_and_holds_the_estimate(case):
    b, c, n = case
    low, high = tango(b, c, n)
    assert low <= (b - c) / n <= high
    assert tango(c, b, n) == pytest.approx((-high, -low), abs=1e-9)
    wide = tango(b, c, n, 0.99)
    assert wide[0] <= low
    assert wide[1] >= high


def test_tango_at_the_edges():
    for n in (1, 44, 10_000):
        arm = Z**2 / (n + Z**2)  # closed form where no pair is discordant
        assert tango(0, 0, n) == pytest.approx((-arm, arm))
        low, high = tango(n, 0, n)
        assert high == 1.0
        assert 0 - 1e-9 < low + (1 if n == 1 else 0) < 1  # one sample proves nothing
    assert tango(0, 1, 1)[0] == -1.0


def exact_coverage(n, p_b, p_c, level=0.95):
    """Chance that the interval of a trinomial sample holds p_b - p_c, summed over every sample."""
    covered = 0.0
    for b in range(n + 1):
        for c in range(n + 1 - b):
            low, high = tango(b, c, n, level)
            if low <= p_b - p_c <= high:
                ways = math.comb(n, b) * math.comb(n - b, c)
                covered += ways * p_b**b * p_c**c * (1 - p_b - p_c) ** (n - b - c)
    return covered


@pytest.mark.parametrize(
    ("n", "p_b", "p_c"), [(30, 0.1, 0.05), (30, 0.2, 0.2), (50, 0.04, 0.0), (20, 0.6, 0.1)]
)
def test_tango_covers_the_truth_about_95_times_in_100(n, p_b, p_c):
    assert 0.92 <= exact_coverage(n, p_b, p_c) <= 0.99


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_binomial_tail_doubled(b, c):
    n, k = b + c, min(b, c)
    exact = min(Fraction(1), Fraction(2 * sum(math.comb(n, i) for i in range(k + 1)), 2**n))
    assert mcnemar_exact(b, c) == pytest.approx(float(exact), rel=1e-9)
    assert mcnemar_exact(c, b) == mcnemar_exact(b, c)


def test_mcnemar_known_values():
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(1, 7) == pytest.approx(0.0703125)
    assert mcnemar_exact(12, 2) == pytest.approx(212 / 16384)


def test_the_median_interval_is_the_widest_pair_that_95_percent_allows():
    assert median_interval(range(1, 22)) == (6.0, 16.0)  # n = 21 of every table
    assert median_interval([5, 1, 4, 2, 3, 6]) == (1.0, 6.0)
    for n in (6, 7, 50, 101):
        rank = int(median_interval(range(1, n + 1))[0])
        outside = [2 * sum(math.comb(n, i) for i in range(k)) / 2**n for k in (rank, rank + 1)]
        assert outside[0] <= 0.05 < outside[1]


def test_students_quantiles_of_the_tables():
    for freedom, value in ((1, 12.7062), (2, 4.3027), (4, 2.7764), (9, 2.2622), (30, 2.0423), (120, 1.9799)):
        assert student_quantile(0.975, freedom) == pytest.approx(value, abs=5e-5)
    assert student_quantile(0.975, 200) == pytest.approx(student_quantile(0.975, 201), abs=1e-4)
    assert student_quantile(0.975, 10**9) == pytest.approx(Z)


def test_few_units_leave_out_less():
    shares = [tail_share(units) for units in (1, 2, 5, 20, 100, 10**6)]
    assert shares == sorted(shares)
    assert shares[0] == 0.0
    assert shares[-1] == pytest.approx(0.025, abs=1e-5)
    for units, student in ((5, 2.7764), (10, 2.2622), (31, 2.0423)):
        expected = NormalDist().cdf(-student * math.sqrt(units / (units - 1)))
        assert tail_share(units) == pytest.approx(expected, rel=1e-3)


@settings(max_examples=20)
@given(st.integers(-3, 3), st.integers(-3, 3), st.integers(-1, 3))
def test_counts_that_do_not_fit_are_refused_with_their_values(b, c, n):
    if n >= 1 and min(b, c) >= 0 and b + c <= n:
        return
    with pytest.raises(InputError, match=rf"tango\(b={b}, c={c}, n={n}"):
        tango(b, c, n)


def test_other_refusals():
    with pytest.raises(InputError, match=r"wilson\(k=3, n=2"):
        wilson(3, 2)
    with pytest.raises(InputError, match="level is 95"):
        tango(1, 1, 4, 95)
    with pytest.raises(InputError, match="at least 6"):
        median_interval([1, 2, 3, 4, 5])
    with pytest.raises(InputError, match="mcnemar_exact"):
        mcnemar_exact(-1, 2)
