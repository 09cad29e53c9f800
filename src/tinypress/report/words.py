"""Numbers as people read them: decimal kilobytes, milliseconds, points, ratios, intervals.

Everything here is a pure function from a value of the receipt to a short text. A text is rounded for reading
and never goes back into a computation. Percent exists only in this folder; the receipt holds fractions.
"""

from __future__ import annotations

from math import floor, log10

from tinypress.receipt import Drop, Latency, Quality, Ratio, Receipt, Tolerance

NOT_MEASURED = "not measured"
MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"


def fixed(value: float, decimals: int) -> str:
    """``value`` with ``decimals`` places, thousands separated, a true minus sign and no negative zero."""
    text = f"{value:,.{decimals}f}"
    if not text.strip("-0.,"):
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def figures(value: float, digits: int = 3) -> str:
    """``value`` to ``digits`` significant figures, never in powers of ten: 14.2, 0.483, 1,240, 0.00031."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    return fixed(rounded, max(0, digits - 1 - floor(log10(abs(rounded)))))


def _scaled(value: float, units: tuple[tuple[float, str], ...]) -> str:
    """``value`` in the largest of ``units`` (ascending) that leaves at least 1 once rounded."""
    size = abs(float(f"{value:.2e}"))
    factor, unit = next((pair for pair in reversed(units) if size >= pair[0]), units[0])
    return f"{figures(value / factor)} {unit}"


def byte_size(value: float) -> str:
    """Bytes in decimal units: 1 kB is 1,000 bytes."""
    if value < 1000:
        return f"{value:.0f} B"
    return _scaled(value, ((1e3, "kB"), (1e6, "MB"), (1e9, "GB")))


def kilobytes(value: float) -> str:
    """Bytes as a bare number of kB, one decimal, for a column whose head names the unit."""
    return fixed(value / 1e3, 1)


def duration(value_ms: float) -> str:
    """Milliseconds in the unit that reads best: µs, ms or s."""
    return _scaled(value_ms, ((1e-3, "µs"), (1.0, "ms"), (1e3, "s")))


def energy(value_mj: float) -> str:
    """Millijoules in the unit that reads best: nJ, µJ, mJ or J."""
    return _scaled(value_mj, ((1e-6, "nJ"), (1e-3, "µJ"), (1.0, "mJ"), (1e3, "J")))


def count(value: int) -> str:
    """A whole number with its thousands separated."""
    return fixed(value, 0)


def big_count(value: int) -> str:
    """A count that may be large, such as MACs: 1.83 M."""
    if value < 1000:
        return count(value)
    return _scaled(value, ((1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T")))


def percent(fraction: float, decimals: int = 1) -> str:
    """A fraction as percent."""
    return f"{fixed(100 * fraction, decimals)} %"


def _ratio_decimals(value: float) -> int:
    return 2 if 0.1 <= value < 9.995 else 1 if 9.995 <= value < 99.95 else 0 if value >= 99.95 else 4


def ratio(value: float) -> str:
    """A ratio with its multiplication sign: 14.2×, 0.48×, 1,250×, 0.0042×."""
    return f"{fixed(value, _ratio_decimals(value))}{TIMES}"


def span(low: str, high: str) -> str:
    """An interval from two texts."""
    return f"[{low}, {high}]"


def ratio_span(value: Ratio) -> str:
    """The interval of a ratio, with as many decimals as the ratio itself."""
    decimals = _ratio_decimals(value.value)
    return span(fixed(value.low, decimals), fixed(value.high, decimals))


def latency_span(value: Latency) -> str:
    """The interval of a latency, each end with its unit."""
    return span(duration(value.low), duration(value.high))


def smaller(bytes_: int, baseline_bytes: int) -> str:
    """How many times smaller (or larger) a file is than the baseline's: '14.2× smaller'."""
    if bytes_ == baseline_bytes:
        return "same size"
    if bytes_ < baseline_bytes:
        return f"{ratio(baseline_bytes / bytes_)} smaller"
    return f"{ratio(bytes_ / baseline_bytes)} larger"


def score(receipt: Receipt, value: float) -> str:
    """A value of the task's metric: percent where differences are told in points, else a plain number."""
    return percent(value) if receipt.tolerance.unit == "points" else figures(value, 4)


def score_span(receipt: Receipt, quality: Quality) -> str:
    """The interval of a quality; without percent signs, which the value before it carries."""
    if receipt.tolerance.unit == "points":
        return span(fixed(100 * quality.low, 1), fixed(100 * quality.high, 1))
    return span(figures(quality.low, 4), figures(quality.high, 4))


def drop_decimals(drop: Drop, tolerance: Tolerance) -> int:
    """The fewest decimals (1 to 4) at which both ends of the interval stay on their side of the tolerance.

    An upper end of 3.04 shown as 3.0 would seem to be within a tolerance of 3.
    """
    ends = (drop.low, drop.high)
    for decimals in (1, 2, 3):
        if all((round(end, decimals) <= tolerance.value) == (end <= tolerance.value) for end in ends):
            return decimals
    return 4


def drop_number(value: float, drop: Drop, tolerance: Tolerance) -> str:
    """One number of a drop: fixed decimals for points, significant figures for a metric's own unit."""
    return fixed(value, drop_decimals(drop, tolerance)) if drop.unit == "points" else figures(value)


def drop_span(drop: Drop, tolerance: Tolerance) -> str:
    """The interval of a drop."""
    return span(drop_number(drop.low, drop, tolerance), drop_number(drop.high, drop, tolerance))


def tolerance_words(tolerance: Tolerance, metric: str) -> str:
    """The tolerance with its unit: '3 points', '0.05 of mse'."""
    number = f"{tolerance.value:g}"
    if tolerance.unit == "metric":
        return f"{number} of {metric}"
    return f"{number} point" if tolerance.value == 1 else f"{number} points"


def shape_words(shape: tuple[int, ...]) -> str:
    """A weight's shape: 64×32×5."""
    return TIMES.join(str(size) for size in shape)


def sparsity(parameters: int, nonzero: int) -> float:
    """The share of parameters that are exactly zero, 0..1; 0 where there are none."""
    return 1 - nonzero / parameters if parameters else 0.0
