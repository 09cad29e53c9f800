"""The two requantizations against exact fractions, number by number."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinypress.errors import InputError
from tinypress.facts import QuantizedValue
from tinypress.quantize.requantize import (
    check_requantization,
    fixed_point,
    halved,
    requantize,
    times_fixed_point,
)

SUMS = st.integers(-(2**31), 2**31 - 1)
MULTIPLIERS = st.floats(2.0**-30, 200.0, allow_nan=False)


def one(value: int | float) -> np.ndarray:
    return np.array([value], np.int64 if isinstance(value, int) else np.float64)


def high_product(a: int, b: int) -> int:
    """a b / 2**31, halves upwards, in 32 bits: what ARM calls SQRDMULH."""
    return max(-(2**31), min(2**31 - 1, (Fraction(a * b, 2**31) + Fraction(1, 2)).__floor__()))


def half_away(value: Fraction) -> int:
    whole = (abs(value) + Fraction(1, 2)).__floor__()
    return whole if value >= 0 else -whole


@given(MULTIPLIERS)
def test_a_multiplier_is_31_bits_and_a_shift(real: float) -> None:
    multiplier, shift = (int(part[0]) for part in fixed_point(one(real)))
    assert 2**30 <= multiplier < 2**31
    assert abs(Fraction(multiplier, 2**31) / Fraction(2) ** shift / Fraction(real) - 1) <= Fraction(1, 2**31)


def test_a_multiplier_just_below_a_power_of_two_carries() -> None:
    multiplier, shift = fixed_point(one(1 - 2.0**-40))
    assert (int(multiplier[0]), int(shift[0])) == (2**30, -1)


def test_a_multiplier_that_moves_no_sum_is_zero() -> None:
    multiplier, shift = fixed_point(one(2.0**-33))
    assert (int(multiplier[0]), int(shift[0])) == (0, 0)


@given(SUMS, MULTIPLIERS)
def test_fixed_point_rounds_as_registers_do(acc: int, real: float) -> None:
    multiplier, shift = fixed_point(one(real))
    moved = max(-(2**31), min(2**31 - 1, acc << max(0, -int(shift[0]))))
    product = high_product(moved, int(multiplier[0]))
    expected = half_away(Fraction(product, 2 ** max(0, int(shift[0]))))
    assert int(times_fixed_point(one(acc), multiplier, shift)[0]) == expected


@given(st.integers(-(2**40), 2**40), st.integers(0, 31))
def test_halves_go_away_from_zero(whole: int, times: int) -> None:
    assert int(halved(one(whole), times)[0]) == half_away(Fraction(whole, 2**times))


@given(st.integers(-(2**24), 2**24), st.floats(1e-6, 1.0), st.floats(1e-3, 10.0), st.integers(0, 255))
def test_both_round_the_real_number(acc: int, scale: float, step: float, zero_point: int) -> None:
    output = QuantizedValue(step, zero_point)
    real = Fraction(acc) * Fraction(float(np.float32(scale))) / Fraction(float(np.float32(step)))
    exact = max(0, min(255, round(real) + zero_point))
    found, fixed = (
        int(requantize(one(acc), np.array([scale], np.float32), output, how)[0])
        for how in ("float32", "fixed")
    )
    # a float32 has 24 bits: only what lies near the edge of two integers may differ
    near = abs(real - real.__floor__() - Fraction(1, 2)) <= abs(real) * Fraction(1, 2**21)
    assert found == exact or (near and abs(found - exact) == 1)
    assert abs(fixed - exact) <= 1  # it rounds twice


def test_halves_go_to_the_even_neighbour_in_float32_and_away_from_zero_in_fixed() -> None:
    acc, output = np.array([-3, -1, 1, 3, 5], np.int64), QuantizedValue(2.0, 10)
    half = np.array([1.0], np.float32)
    assert requantize(acc, half, output, "float32").tolist() == [8, 10, 10, 12, 12]
    # the first rounding of the two carries halves upwards
    assert requantize(acc, half, output, "fixed").tolist() == [9, 10, 11, 12, 13]


def test_other_names_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"run: requantization is 'exact'. Use one of \['float32', 'fixed'\]"
    ):
        check_requantization("run", "exact")
