"""Layers beside the baseline's, histograms on one axis."""

import re

from hypothesis import given
from hypothesis import strategies as st

from report.sample import sample_receipt
from tinypress.receipt import Histogram
from tinypress.report.pairs import HEIGHT, WIDTH, overlay, pair_layers


def test_layers_meet_by_name_and_the_lost_ones_are_told() -> None:
    receipt = sample_receipt()
    shrunk = receipt.candidate("shrink")
    renamed = shrunk.layers[0].model_copy(update={"name": "features.0.narrow"})
    pairs = pair_layers(shrunk.model_copy(update={"layers": (renamed, *shrunk.layers[1:])}), receipt.baseline)
    assert [pair.name for pair in pairs] == [
        "features.0.narrow", "features.3", "features.6", "hidden", "head", "features.0",
    ]  # fmt: skip
    assert pairs[0].before is None
    assert pairs[-1].now is None
    assert pairs[1].before is receipt.baseline.layers[1]


def steps(path: str) -> list[tuple[float, float]]:
    """(height, right end) of each bar of a histogram's path."""
    return [(HEIGHT - float(y), float(x)) for y, x in re.findall(r"V([\d.]+)H([\d.]+)", path)]


def test_bars_are_shares_per_unit_of_weight() -> None:
    narrow = Histogram(low=0, high=1, counts=(5, 5))
    wide = Histogram(low=0, high=2, counts=(50, 50))
    picture = overlay(wide, narrow)
    assert picture is not None
    assert (picture.low, picture.high) == (0, 2)
    assert abs(steps(picture.now)[0][0] - 2 * steps(picture.before)[0][0]) < 0.2
    assert [x for _, x in steps(picture.before)] == [WIDTH / 2, WIDTH]
    assert [x for _, x in steps(picture.now)] == [WIDTH / 4, WIDTH / 2]


def test_a_towering_bin_is_cut_so_that_the_others_stay_visible() -> None:
    picture = overlay(None, Histogram(low=-1, high=1, counts=(10, 12, 5000, 12, 10)))
    assert picture is not None
    heights = [height for height, _ in steps(picture.now)]
    assert heights[2] == HEIGHT
    assert heights[1] > 0.7 * HEIGHT


@given(
    st.lists(st.integers(0, 1000), min_size=1, max_size=60),
    st.floats(-10, 10),
    st.floats(0, 10),
)
def test_every_picture_stays_in_its_box(counts: list[int], low: float, width: float) -> None:
    picture = overlay(Histogram(low=low, high=low + width, counts=tuple(counts)), None)
    assert (picture is None) == (sum(counts) == 0)
    if picture is not None:
        assert all(-0.05 <= height <= HEIGHT and 0 <= x <= WIDTH for height, x in steps(picture.before))


def test_nothing_to_show_is_no_picture() -> None:
    assert overlay(None, None) is None
    assert overlay(Histogram(low=0, high=0, counts=(0,)), None) is None
