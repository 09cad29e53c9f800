"""How sure a difference is when training is luck too: a mean over seeds, with its interval over seeds and samples.

Legend: S seeds, N samples, U units (groups, or samples where there are none).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from tinypress.errors import DataError, InputError
from tinypress.measure.interval import LEVEL, student_quantile
from tinypress.measure.metrics import NamedMetric
from tinypress.measure.quality import compute
from tinypress.measure.resample import count_units, percentiles, resampled
from tinypress.measure.verdict import MOST_SAMPLES, judge
from tinypress.summary import MeanDrop

MOST_SEEDS = 10_000
_Z = 1.959963984540054  # Φ⁻¹(0.975)


def seed_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """Interval of the mean of ``values`` [S], one a seed, had other seeds been drawn: x̄ ± t s / √S with S - 1
    degrees of freedom (Student, Biometrika 6:1, 1908). One seed gives its value twice: it says nothing of the others.

    Raises:
        InputError: there is no value, or one is not finite.
    """
    if not values or not all(math.isfinite(value) for value in values):
        raise InputError(
            f"seed_interval({list(values)})", "there is no finite value for each seed", "Give one or more"
        )
    mean, count = math.fsum(values) / len(values), len(values)
    if count == 1 or len(set(values)) == 1:
        return mean, mean
    half = student_quantile((1 + level) / 2, count - 1) * _spread(values) / math.sqrt(count)
    return mean - half, mean + half


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean of one value a seed and their standard deviation (of S - 1 degrees of freedom); None for one seed."""
    return math.fsum(values) / len(values), _spread(values) if len(values) > 1 else None


def both(value: float, first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    """The interval of a sum of two independent parts whose own intervals are known, ``first`` and ``second``, each
    around the same estimate.

    θ - √((θ - l₁)² + (θ - l₂)²) and θ + √((u₁ - θ)² + (u₂ - θ)²): each arm is recovered variance (Zou and Donner,
    Statistics in Medicine 27:1693, 2008, equations 2 and 3).
    """
    low = math.hypot(value - first[0], value - second[0])
    high = math.hypot(first[1] - value, second[1] - value)
    return value - low, value + high


def mean_drop(
    baseline: Sequence[Tensor],
    candidate: Sequence[Tensor],
    targets: Tensor,
    groups: Tensor | None,
    metric: NamedMetric,
    tolerance: float,
    seed: int,
) -> MeanDrop:
    """The loss in quality from baseline to candidate, paired within each of S seeds, on the mean over seeds.

    ``baseline`` and ``candidate`` hold one tensor of outputs [N, ...] a seed, ``groups`` [N] or None. Unit and sign are
    those of ``paired_drop``. The samples are the same for every seed, so their luck does not average out: its arm is
    the paired bootstrap of the mean over seeds, for a proportion never shorter than z² / (N + z²), which no event in
    N samples leaves open (Tango's at b = c = 0). The seeds' arm is Student's. Both are joined by ``both``. One seed or
    one unit gives no verdict.

    Raises:
        InputError: a tolerance below 0 or not finite, no seed, or a metric without a finite value.
        DataError: outputs, targets and groups do not fit together, or there are not as many of each.
    """
    call = f"mean_drop({metric.name}, {len(baseline)} seeds, {len(targets)} samples, tolerance={tolerance})"
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise InputError(call, f"the tolerance is {tolerance}", "Give the loss that is acceptable, 0 or more")
    if len(baseline) != len(candidate) or not baseline:
        raise DataError(
            call, f"there are {len(candidate)} candidates", "Give one of each a seed, one or more"
        )
    if len({x.shape for x in (*baseline, *candidate)}) != 1:
        raise DataError(call, "outputs differ in shape", "Compare networks of one output on the same samples")
    sign = (1.0 if metric.higher_is_better else -1.0) * (100.0 if metric.unit == "points" else 1.0)
    pairs = list(zip(baseline, candidate, strict=True))
    values = [
        0.0 + sign * (compute(metric, was, targets) - compute(metric, now, targets)) for was, now in pairs
    ]
    value = math.fsum(values) / len(values)
    units = count_units(targets, groups)
    of_samples = _over_samples(baseline, candidate, targets, groups, metric, seed, sign, value)
    if metric.proportion:
        least = abs(sign) * _Z * _Z / (len(targets) + _Z * _Z)
        of_samples = min(of_samples[0], value - least), max(of_samples[1], value + least)
    of_seeds = seed_interval(values)
    low, high = both(value, of_samples, of_seeds)
    settled = len(values) > 1 and units > 1
    verdict = judge(low, high, tolerance) if settled else "cannot tell"
    more = (
        needed(value, of_seeds, of_samples, tolerance, len(values), len(targets))
        if settled and verdict == "cannot tell"
        else (None, None)
    )
    over = "samples" if groups is None else "groups"
    return MeanDrop(
        values=tuple(values),
        value=value,
        spread=mean_and_spread(values)[1],
        low=low,
        high=high,
        seeds_low=of_seeds[0],
        seeds_high=of_seeds[1],
        unit=metric.unit,
        method=f"Student's t over seeds joined with the paired bootstrap over {over}",
        verdict=verdict,
        seeds_needed=more[0],
        samples_needed=more[1],
    )


def needed(
    value: float,
    of_seeds: tuple[float, float],
    of_samples: tuple[float, float],
    tolerance: float,
    seeds: int,
    samples: int,
) -> tuple[int | None, int | None]:
    """About how many seeds, and how many samples, would settle the verdict, were the drop really ``value``.

    Either arm towards the tolerance shrinks as 1/√n while the other stays: a² k / k' + b² = distance², solved for k'.
    None where the arm that stays is longer than the distance by itself, or the number is beyond all use.
    """
    upward = value < tolerance
    arm_of_seeds, arm_of_samples = (
        (ends[1] - value if upward else value - ends[0]) for ends in (of_seeds, of_samples)
    )
    distance = abs(tolerance - value)

    def enough(count: int, arm: float, other: float, most: int) -> int | None:
        room = distance**2 - other**2
        if room <= 0 or count * arm**2 / room > most:
            return None
        return max(count + 1, math.ceil(count * arm**2 / room))

    return (
        enough(seeds, arm_of_seeds, arm_of_samples, MOST_SEEDS),
        enough(samples, arm_of_samples, arm_of_seeds, MOST_SAMPLES),
    )


def _over_samples(
    baseline: Sequence[Tensor],
    candidate: Sequence[Tensor],
    targets: Tensor,
    groups: Tensor | None,
    metric: NamedMetric,
    seed: int,
    sign: float,
    value: float,
) -> tuple[float, float]:
    """Interval of the mean drop had other samples been drawn: all 2 S networks on the same resamples."""
    found = resampled((*baseline, *candidate), targets, groups, metric, seed)
    drops = sign * (found[:, : len(baseline)] - found[:, len(baseline) :]).mean(axis=1)
    low, high = percentiles(drops, count_units(targets, groups))
    return min(low, value), max(high, value)


def _spread(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1))
