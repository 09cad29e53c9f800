"""Pictures: every artifact labelled, colours left to the page, the same picture every time."""

import re
import struct
from pathlib import Path

import pytest

from report.sample import sample_receipt
from tinypress.receipt import Receipt, Tolerance
from tinypress.report.chart import fallen, log_ticks, y_limits
from tinypress.report.drawing import draw
from tinypress.report.plots import bytes_chart, draw_summary, latency_chart, latency_front, page_svg
from tinypress.report.svg import PAPER


def renamed(receipt: Receipt, name: str) -> Receipt:
    first, *rest = receipt.candidates
    return receipt.model_copy(update={"candidates": (first.model_copy(update={"name": name}), *rest)})


def texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_every_artifact_is_labelled_at_both_widths() -> None:
    chart = bytes_chart(sample_receipt())
    svg = str(page_svg(chart, "b", "label"))
    wide, narrow = svg.split('<div class="narrow">')
    for point in chart.points:
        assert point.name in texts(wide)
        assert point.name in texts(narrow)


def test_colours_and_font_are_the_pages() -> None:
    svg = str(page_svg(bytes_chart(sample_receipt()), "b", "label"))
    assert "#fe01" not in svg
    assert {
        "var(--ink)",
        "var(--soft)",
        "var(--line)",
        "var(--panel)",
        "var(--candidate)",
        "var(--control)",
    } <= set(re.findall(r"var\(--\w+\)", svg))
    assert all("var(--font)" in style for style in re.findall(r'<text style="([^"]*)"', svg))
    assert not re.search(r"#[0-9a-f]{6}", svg)


def test_ids_of_two_pictures_do_not_meet() -> None:
    svg = str(page_svg(bytes_chart(sample_receipt()), "b", "label"))
    ids = re.findall(r'\bid="([^"]*)"', svg)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'(?:href="#|url\(#)([^")]*)', svg))
    assert used <= set(ids)


def test_the_pointer_finds_the_numbers() -> None:
    svg = str(page_svg(bytes_chart(sample_receipt()), "b", "label"))
    assert "<title>int8 (candidate): 123 kB, accuracy 88.2 % [86.5, 89.8]</title>" in svg


def test_the_front_of_latency_is_of_latency_and_validation() -> None:
    receipt = sample_receipt()
    front = latency_front(receipt)
    assert front == ("shrink+distill+int8", "shrink+int8", "shrink", "int8", "baseline")
    assert not {receipt.candidate(name).role for name in front} & {"control"}


def test_an_artifact_without_latency_is_not_drawn_at_zero() -> None:
    chart = latency_chart(sample_receipt())
    assert chart is not None
    assert "prune (archive)" not in {point.name for point in chart.points}
    assert len(chart.points) == 13


def test_no_latency_at_all_is_no_picture() -> None:
    receipt = sample_receipt()
    untimed = tuple(c.model_copy(update={"latency_ms": None}) for c in receipt.candidates)
    assert latency_chart(receipt.model_copy(update={"candidates": untimed})) is None


def test_better_is_up_even_where_lower_is_better() -> None:
    receipt = sample_receipt().model_copy(
        update={"higher_is_better": False, "metric": "mse", "tolerance": Tolerance(value=0.02, unit="metric")}
    )
    chart = bytes_chart(receipt)
    bottom, top = y_limits(chart)
    assert bottom > top
    assert chart.limit == pytest.approx(receipt.baseline.quality.value + 0.02)
    assert draw(chart, PAPER, 500, 300).axes[0].get_ylim() == (bottom, top)


def test_the_tolerance_is_drawn_in_the_metrics_own_scale() -> None:
    receipt = sample_receipt()
    assert bytes_chart(receipt).limit == pytest.approx(receipt.baseline.quality.value - 0.03)


def test_one_that_fell_far_does_not_flatten_the_others() -> None:
    receipt = sample_receipt()
    last = receipt.candidates[-1]
    lost = last.model_copy(
        update={"quality": last.quality.model_copy(update={"value": 0.14, "low": 0.1, "high": 0.2})}
    )
    chart = bytes_chart(receipt.model_copy(update={"candidates": (*receipt.candidates[:-1], lost)}))
    assert fallen(chart) == {0.14}
    assert y_limits(chart)[0] > 0.7
    svg = str(page_svg(chart, "b", "label"))
    assert "control: student alone 14 %" in texts(svg)


@pytest.mark.parametrize(
    "name", ["$\\frac{x}{2}$", "<script>alert(1)</script>", "行列 🗜", "a\nb", "", "x" * 300]
)
def test_any_name_can_be_drawn(name: str, tmp_path: Path) -> None:
    receipt = renamed(sample_receipt(), name)
    svg = str(page_svg(bytes_chart(receipt), "b", "label"))
    assert "<script" not in svg
    draw_summary(receipt, tmp_path / "summary.png")


@pytest.mark.parametrize(
    ("low", "high", "gap", "ticks"),
    [
        (9e3, 6e5, 0.15, [1e4, 2e4, 3e4, 5e4, 1e5, 2e5, 3e5, 5e5]),
        (9e3, 6e5, 0.4, [1e4, 3e4, 1e5, 3e5]),
        (1.0, 1e9, 2.0, [1.0, 1e3, 1e6, 1e9]),
    ],
)
def test_ticks_are_round_and_apart(low: float, high: float, gap: float, ticks: list[float]) -> None:
    assert log_ticks(low, high, gap) == pytest.approx(ticks)


def test_a_narrow_range_still_has_ticks() -> None:
    assert len(log_ticks(0.201, 0.214, 0.005)) >= 2


def test_one_artifact_alone_can_be_drawn() -> None:
    receipt = sample_receipt()
    alone = receipt.model_copy(
        update={"candidates": receipt.candidates[:1], "pareto": ("baseline",), "chosen": "baseline"}
    )
    assert "baseline" in texts(str(page_svg(bytes_chart(alone), "b", "label")))


def test_the_summary_is_a_picture_and_the_same_every_time(tmp_path: Path) -> None:
    receipt = sample_receipt()
    draw_summary(receipt, tmp_path / "one.png")
    draw_summary(receipt, tmp_path / "two.png")
    data = (tmp_path / "one.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (1840, 1000)
    assert data == (tmp_path / "two.png").read_bytes()


@pytest.mark.parametrize("name", ["$\\frac{x}{2}$", "$\\nonsense{$", "prune_80%"])
def test_a_name_is_no_formula(name: str) -> None:
    assert name in texts(str(page_svg(bytes_chart(renamed(sample_receipt(), name)), "b", "label")))
