"""How sure a number is: intervals in closed form, pure maths on counts and values.

Three for proportions (Wilson for one accuracy, Tango for the difference of two on the same samples,
McNemar's exact p beside it), one for a median, and the widened levels that small bootstraps need.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from tinypress.errors import InputError

LEVEL = 0.95


def wilson(k: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Score interval for one proportion of which ``k`` of ``n`` were seen.

    The p with (k/n - p)² = z² p (1 - p) / n:
    centre (k + z²/2) / (n + z²), half width z √(k (n - k) / n + z²/4) / (n + z²).

    Returns:
        (low, high), shares in 0..1.

    Raises:
        InputError: not 0 <= k <= n with n >= 1, or a level outside 0..1.

    Reference: Wilson, Journal of the American Statistical Association 22:209 (1927);
    written so in Newcombe, Statistics in Medicine 17:857 (1998), method 3.
    """
    call = f"wilson(k={k}, n={n}, level={level})"
    _check_counts(call, n, k)
    z = _quantile(call, level)
    centre = (k + z * z / 2) / (n + z * z)
    half = z * math.sqrt(k * (n - k) / n + z * z / 4) / (n + z * z)
    low = 0.0 if k == 0 else max(0.0, centre - half)
    high = 1.0 if k == n else min(1.0, centre + half)
    return low, high


def tango(b: int, c: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Score interval for the difference p_b - p_c of two proportions seen on the same ``n`` samples.

    ``b`` samples have the event only in the first (baseline right, candidate wrong), ``c`` only in the
    second, the other ``n - b - c`` in both or neither. The limits are the two δ that solve

        (b - c - n δ)² = z² n (2 q(δ) + δ (1 - δ))

    where q(δ) is the maximum-likelihood p_c under p_b - p_c = δ (``restricted_mle``).

    Returns:
        (low, high) in -1..1, holding (b - c) / n.

    Raises:
        InputError: counts below 0, b + c > n, n < 1 or a level outside 0..1.

    Reference: Tango, Statistics in Medicine 17:891 (1998), equations 11 to 13.
    """
    call = f"tango(b={b}, c={c}, n={n}, level={level})"
    _check_counts(call, n, b, c)
    z = _quantile(call, level)
    middle = (b - c) / n

    def outside(delta: float) -> bool:
        variance = max(0.0, 2 * restricted_mle(b, c, n, delta) + delta * (1 - delta))
        return n * (middle - delta) ** 2 > z * z * variance

    return _boundary(outside, middle, -1.0), _boundary(outside, middle, 1.0)


def restricted_mle(b: int, c: int, n: int, delta: float) -> float:
    """The p_c of highest likelihood among those with p_b = p_c + ``delta``.

    The larger root of 2n q² - (b + c - (2n - b + c) δ) q - c δ (1 - δ) = 0.

    Reference: Tango, Statistics in Medicine 17:891 (1998), equation 13.
    """
    linear = b + c - (2 * n - b + c) * delta
    constant = c * delta * (1 - delta)
    root = math.sqrt(max(0.0, linear * linear + 8 * n * constant))
    if linear >= 0:
        return (linear + root) / (4 * n)
    # The same root without the difference of two nearly equal numbers.
    return 2 * constant / (root - linear)


def mcnemar_exact(b: int, c: int) -> float:
    """Two-sided p of seeing discordant pairs split as unevenly as ``b`` to ``c`` when both models are equal.

    p = min(1, 2 Σ_{i <= min(b, c)} C(b + c, i) / 2^(b + c)); 1 where no pair is discordant.

    Raises:
        InputError: a count below 0.

    Reference: McNemar, Psychometrika 12:153 (1947), in its exact binomial form.
    """
    _check_counts(f"mcnemar_exact(b={b}, c={c})", max(1, b + c), b, c)
    return min(1.0, 2 * _lower_tail(min(b, c), b + c))


def median_interval(values: ArrayLike, level: float = LEVEL) -> tuple[float, float]:
    """Interval for the median of ``values`` [N] from two of them, whatever their distribution.

    The k-th smallest and k-th largest, with the largest k for which P(Bin(N, 1/2) < k) <= (1 - level) / 2.

    Raises:
        InputError: fewer values than any such k needs (6 at 95 %).

    Reference: David and Nagaraja, Order Statistics (2003), section 7.1.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    count = len(ordered)
    call = f"median_interval(<{count} values>, level={level})"
    _quantile(call, level)
    k = 0
    while k < count // 2 and _lower_tail(k, count) <= (1 - level) / 2:
        k += 1
    if k == 0:
        raise InputError(call, "too few values for an interval at this level", "Give at least 6 values")
    return float(ordered[k - 1]), float(ordered[count - k])


def tail_share(units: int, level: float = LEVEL) -> float:
    """The share of resamples to leave out at each end of a percentile interval from ``units`` units.

    Φ(-√(n / (n - 1)) t), with t Student's quantile at n - 1 degrees of freedom: a bootstrap of few units
    is too narrow by the factor √((n - 1) / n) and has normal tails where Student's are needed. For many
    units it is (1 - level) / 2; it is 0 for a single unit, which says nothing of the spread.

    Reference: Hesterberg, The American Statistician 69:371 (2015), "expanded percentile" interval.
    """
    if units < 2:
        return 0.0
    wide = math.sqrt(units / (units - 1)) * student_quantile((1 + level) / 2, units - 1)
    return NormalDist().cdf(-wide)


def student_quantile(p: float, freedom: int) -> float:
    """The value that Student's t with ``freedom`` degrees of freedom is below with probability ``p`` > 1/2.

    Reference: Abramowitz and Stegun, 26.7.3 and 26.7.4 (solved by bisection), 26.7.5 for many degrees.
    """
    z = NormalDist().inv_cdf(p)
    if freedom > 200:
        return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    low, high = 0.0, math.pi / 2  # of the angle atan(t / sqrt(freedom)), which is bounded
    for _ in range(80):
        angle = (low + high) / 2
        if (1 + _student_central(angle, freedom)) / 2 < p:
            low = angle
        else:
            high = angle
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def _student_central(angle: float, freedom: int) -> float:
    """P(|t| < √freedom tan(angle)) for Student's t."""
    cosine, total, term = math.cos(angle), 0.0, 1.0
    if freedom % 2 == 0:
        for i in range(freedom // 2):
            total += term
            term *= cosine * cosine * (2 * i + 1) / (2 * i + 2)
        return math.sin(angle) * total
    term = cosine
    for i in range(freedom // 2):
        total += term
        term *= cosine * cosine * (2 * i + 2) / (2 * i + 3)
    return (angle + math.sin(angle) * total) * 2 / math.pi


def _lower_tail(k: int, n: int) -> float:
    """P(Bin(n, 1/2) <= k)."""
    whole = math.lgamma(n + 1) - n * math.log(2)
    return math.fsum(math.exp(whole - math.lgamma(i + 1) - math.lgamma(n - i + 1)) for i in range(k + 1))


def _boundary(outside: Callable[[float], bool], inside: float, end: float) -> float:
    """Bisection between a value known to be inside and ``end``; ``end`` itself if that is inside too."""
    if not outside(end):
        return end
    for _ in range(100):
        middle = (inside + end) / 2
        if outside(middle):
            end = middle
        else:
            inside = middle
    return inside


def _quantile(call: str, level: float) -> float:
    if not 0 < level < 1:
        raise InputError(call, f"level is {level}", "Give a level between 0 and 1, such as 0.95")
    return NormalDist().inv_cdf((1 + level) / 2)


def _check_counts(call: str, n: int, *parts: int) -> None:
    if n < 1:
        raise InputError(call, "there are no samples", "Give n of at least 1")
    if min(parts) < 0 or sum(parts) > n:
        raise InputError(
            call, f"the counts {parts} do not fit into {n}", "Give counts of 0 or more, n in all"
        )
