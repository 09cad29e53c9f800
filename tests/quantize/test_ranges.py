"""Ranges of values that stream by: the histogram is that of all at once, and each way of clipping keeps its promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tinypress.errors import DataError, InputError
from tinypress.quantize import clipping
from tinypress.quantize.clipping import affine, least_divergence, least_squares, percentile, squared_error
from tinypress.quantize.histogram import BINS, NOTHING, Histogram, widened
from tinypress.quantize.ranges import LEVELS, check_ranges, quantized_values

Floats = NDArray[np.float32]


def drawn(kind: str, count: int = 20_000, seed: int = 0) -> Floats:
    """Numbers as networks have them: normal, all positive with zeros, or with a few far away."""
    values = np.random.default_rng(seed).normal(0.3, 1.0, count).astype(np.float32)
    if kind == "relu":
        values = np.maximum(values, 0)
    if kind == "outliers":
        values[0] = 400.0
    return values


def seen(values: Floats, pieces: int = 1) -> Histogram:
    found = NOTHING
    for part in np.array_split(values, pieces):
        found = widened(found, part, float(part.min()), float(part.max()))
    return found


def quantized(x: Floats, ends: tuple[float, float]) -> NDArray[np.float64]:
    scale, zero_point = affine(*ends, LEVELS)
    q = np.clip(np.rint(x.astype(np.float64) / scale) + zero_point, 0, LEVELS)
    return (q - zero_point) * scale


@given(
    st.lists(st.tuples(st.integers(-(2**20), 2**20), st.integers(-30, 30)), min_size=1, max_size=40),
    st.integers(1, 8),
)
@settings(max_examples=60, deadline=None)
def test_a_stream_has_the_histogram_of_all_its_values(values: list[tuple[int, int]], pieces: int) -> None:
    x = np.array([number * 2.0**power for number, power in values], np.float32)
    once, streamed = seen(x), seen(x, min(pieces, len(x)))
    assert (once.low, once.high, once.zeros) == (min(0, x.min()), max(0, x.max()), (x == 0).sum())
    assert (once.width, once.first, once.zeros) == (streamed.width, streamed.first, streamed.zeros)
    np.testing.assert_array_equal(once.counts, streamed.counts)
    assert once.total == len(x)
    assert len(once.counts) <= BINS
    assert math.frexp(once.width)[0] == 0.5
    for count, low, high in zip(once.counts, once.edges[:-1], once.edges[1:], strict=True):
        if count:
            assert count == ((x >= low) & (x < high) & (x != 0)).sum()


@pytest.mark.parametrize("kind", ["normal", "relu", "outliers"])
@pytest.mark.parametrize("clip", [percentile, least_squares, least_divergence])
def test_a_clipped_range_holds_zero_and_is_no_wider_than_what_was_seen(kind: str, clip: object) -> None:
    assert callable(clip)
    found = seen(drawn(kind), 7)
    low, high = clip(found, LEVELS)
    assert found.low <= low <= 0 <= high <= found.high
    assert high > low


@pytest.mark.parametrize("share", [0.99, 0.999, 1.0])
@pytest.mark.parametrize("kind", ["normal", "relu"])
def test_percentile_leaves_its_share_beyond_each_end(kind: str, share: float) -> None:
    x = drawn(kind)
    found = seen(x)
    low, high = percentile(found, LEVELS, share)
    # to within the bin that the end lies in
    assert (x > high + found.width).mean() <= 1 - share <= (x > high - found.width).mean()
    assert (x < low - found.width).mean() <= 1 - share
    assert kind == "relu" or 1 - share <= (x < low + found.width).mean()
    if share == 1:
        assert (low, high) == (found.low, found.high)


@pytest.mark.parametrize("ends", [(-2.0, 3.0), (-0.5, 1.0), (0.0, 2.5), (-4.0, 0.5)])
def test_the_squared_error_of_a_histogram_is_that_of_its_values(ends: tuple[float, float]) -> None:
    x = drawn("normal", 200_000)
    direct = float(np.square(quantized(x, ends) - x).sum())
    assert squared_error(seen(x), ends, LEVELS) == pytest.approx(direct, rel=0.01)


def test_mse_clips_an_outlier_where_the_other_numbers_are_worth_it() -> None:
    x = np.append(drawn("relu"), np.float32(12.0))
    low, high = least_squares(seen(x), 15)
    assert low == 0
    assert high < 8

    def error(end: float) -> float:
        scale, _ = affine(0.0, end, 15)
        return float(np.square(np.clip(np.rint(x / scale), 0, 15) * scale - x).sum())

    assert error(high) <= 1.01 * min(error(end) for end in np.linspace(1, 12, 111))
    assert error(high) < 0.5 * error(12.0)
    assert least_squares(seen(x), LEVELS)[1] > 11  # 8 bits have steps to spare


def test_mse_draws_in_the_end_that_has_the_outlier_alone() -> None:
    x = np.append(drawn("normal"), np.float32(-15.0))
    low, high = least_squares(seen(x), 15)
    assert low > -8
    assert high > 2


def test_entropy_is_the_divergence_of_the_method_worked_out_by_hand() -> None:
    # 8 bins into 4 levels, the last two bins cut off and added to the last that is left
    counts = np.array([4, 0, 2, 6, 1, 1, 3, 1], np.int64)
    p = np.array([4, 0, 2, 6, 1, 1 + 3 + 1], float)
    q = np.array([4, 0, 2, 6, 1, 1], float)  # levels: [4], [0, 2], [6], [1, 1]
    p, q = p / p.sum(), np.array([4, 0, 2, 6, 1, 1]) / q.sum()
    expected = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a)
    assert clipping._divergence(counts, 0, 6, 4) == pytest.approx(expected)
    # a level's counts are spread evenly over its bins that hold something: [4, 2] -> [3, 3], [5, 0] -> [5, 0]
    p, q = np.array([4, 2, 5, 0]) / 11, np.array([3, 3, 5, 0]) / 11
    expected = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a)
    assert clipping._divergence(np.array([4, 2, 5, 0]), 0, 4, 2) == pytest.approx(expected)


def test_entropy_cuts_off_what_is_far_away() -> None:
    x = drawn("outliers", 200_000)
    high = least_divergence(seen(x), LEVELS)[1]
    assert high < 200
    assert least_divergence(seen(drawn("relu")), LEVELS)[0] == 0


def test_moving_averages_the_samples_and_does_not_favour_the_first() -> None:
    batch = np.array([[-1.0, 2.0], [-3.0, 4.0], [5.0, 9.0]], np.float32)
    weights = np.array([0.99**2, 0.99, 1.0])
    low = -(weights @ [1, 3, 0]) / weights.sum()
    high = weights @ [2, 4, 9] / weights.sum()
    for cut in ([batch], [batch[:1], batch[1:]]):
        found = quantized_values(({"x": part} for part in cut), {"x": "moving"})["x"]
        assert found.scale == pytest.approx((high - low) / 255)
        assert found.zero_point == round(-low / found.scale)


def test_each_value_has_its_own_way() -> None:
    x = drawn("outliers")
    found = quantized_values([{"a": x[None], "b": x[None]}], {"a": "minmax", "b": "percentile"})
    assert found["a"].scale == pytest.approx((400 - x.min()) / 255)
    assert found["b"].scale < found["a"].scale / 10


@pytest.mark.parametrize("method", ["minmax", "moving", "percentile", "mse", "entropy"])
def test_zeros_alone_and_extreme_numbers_have_a_range(method: str) -> None:
    check_ranges("here", [method], 0.9999)
    for number, expected in ((0.0, 1.0), (1e38, None), (1e-42, None)):
        batch = {"x": np.array([[0.0, number]], np.float32)}
        found = quantized_values([batch], {"x": method})["x"]  # type: ignore[dict-item]
        assert found.scale > 0
        assert math.isfinite(found.scale)
        if expected is not None:
            assert (found.scale, found.zero_point) == (expected, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("method", ["minmax", "entropy"])
def test_nan_and_infinity_are_refused_with_the_name(bad: float, method: str) -> None:
    batches = [{"x": np.ones((1, 3), np.float32)}, {"x": np.array([[1.0, bad, 2.0]], np.float32)}]
    with pytest.raises(DataError, match=r"batch 2.*'x' became NaN or infinite"):
        quantized_values(batches, {"x": method})  # type: ignore[dict-item]


@pytest.mark.parametrize(("method", "share"), [("kl", 0.999), ("mse", 0.2), ("mse", 1.5), ("mse", True)])
def test_settings_that_there_are_not(method: str, share: float) -> None:
    with pytest.raises(InputError, match="here: "):
        check_ranges("here", [method], share)
