"""Numbers as texts: units, rounding, signs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from report.sample import sample_receipt
from tinypress.receipt import Drop, Quality, Ratio, Tolerance
from tinypress.report import words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (36_112, "36.1 kB"),
        (999_499, "999 kB"),
        (999_600, "1.00 MB"),
        (10_485_760, "10.5 MB"),
        (2.5e9, "2.50 GB"),
    ],
)
def test_bytes_are_decimal(value: int, text: str) -> None:
    assert words.byte_size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0004, "0.400 µs"),
        (0.2131, "213 µs"),
        (0.9999, "1.00 ms"),
        (18.04, "18.0 ms"),
        (2500, "2.50 s"),
        (0, "0 µs"),
    ],
)
def test_durations_take_the_unit_that_reads_best(value: float, text: str) -> None:
    assert words.duration(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.48, "0.48×"),
        (14.18, "14.2×"),
        (4.094, "4.09×"),
        (9.999, "10.0×"),
        (1250.4, "1,250×"),
        (0.0042, "0.0042×"),
    ],
)
def test_ratios(value: float, text: str) -> None:
    assert words.ratio(value) == text


def test_an_interval_has_the_decimals_of_its_ratio() -> None:
    assert words.ratio_span(Ratio(value=1.0, low=0.968, high=1.041)) == "[0.97, 1.04]"


def test_smaller_and_larger_are_ratios_of_unrounded_bytes() -> None:
    assert words.smaller(36_112, 512_790) == "14.2× smaller"
    assert words.smaller(1500, 1000) == "1.50× larger"
    assert words.smaller(7, 7) == "same size"


@pytest.mark.parametrize(
    ("value", "text"), [(1_830_000, "1.83 M"), (999, "999"), (90_321, "90.3 k"), (4.2e9, "4.20 G")]
)
def test_large_counts(value: int, text: str) -> None:
    assert words.big_count(int(value)) == text


@given(st.floats(-1e6, 1e6, allow_nan=False), st.integers(0, 4))
def test_a_rounded_number_is_the_number_and_never_minus_zero(value: float, decimals: int) -> None:
    text = words.fixed(value, decimals)
    back = float(text.replace(words.MINUS, "-").replace(",", ""))
    assert abs(back - value) <= 0.5000001 * 10**-decimals
    assert not (back == 0 and words.MINUS in text)


@given(st.floats(1e-9, 1e9), st.integers(1, 5))
def test_significant_figures_keep_their_promise(value: float, digits: int) -> None:
    text = words.figures(value, digits)
    assert "e" not in text
    assert abs(float(text.replace(",", "")) - value) <= 0.5000001 * 10 ** (1 - digits) * value * 10


def drop(low: float, high: float) -> Drop:
    return Drop(value=low, low=low, high=high, unit="points", method="", verdict="cannot tell")


@given(st.integers(-8000, 8000), st.integers(0, 4000), st.integers(0, 5000))
def test_a_shown_end_never_changes_sides_of_the_tolerance(low: int, width: int, limit: int) -> None:
    shown, tolerance = drop(low / 1000, (low + width) / 1000), Tolerance(value=limit / 1000, unit="points")
    for end in (shown.low, shown.high):
        text = words.drop_number(end, shown, tolerance).replace(words.MINUS, "-")
        assert (float(text) <= tolerance.value) == (end <= tolerance.value)


def test_an_upper_end_just_over_the_tolerance_is_not_rounded_onto_it() -> None:
    assert words.drop_span(drop(1.0, 3.04), Tolerance(value=3, unit="points")) == "[1.00, 3.04]"
    assert words.drop_span(drop(1.0, 3.51), Tolerance(value=3, unit="points")) == "[1.0, 3.5]"


def test_points_are_percent_and_other_metrics_are_plain() -> None:
    receipt = sample_receipt()
    quality = Quality(value=0.846, low=0.829, high=0.862, samples=9, groups=9, evaluated_in="torch")
    assert words.score(receipt, quality.value) == "84.6 %"
    assert words.score_span(receipt, quality) == "[82.9, 86.2]"
    other = receipt.model_copy(update={"tolerance": Tolerance(value=0.05, unit="metric"), "metric": "mse"})
    assert words.score(other, 0.846) == "0.8460"
    assert words.score_span(other, quality) == "[0.8290, 0.8620]"
    assert words.tolerance_words(other.tolerance, "mse") == "0.05 of mse"


def test_sparsity_is_the_share_of_zeros() -> None:
    assert words.sparsity(200, 50) == 0.75
    assert words.sparsity(0, 0) == 0.0
