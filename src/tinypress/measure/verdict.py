"""How much worse than the baseline, how sure that is, and what follows for the tolerance."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

from tinypress.errors import DataError, InputError
from tinypress.measure import interval
from tinypress.measure.metrics import NamedMetric
from tinypress.measure.quality import compute
from tinypress.measure.resample import bootstrap, count_units, paired_bootstrap
from tinypress.receipt import Drop

MOST_SAMPLES = 10_000_000  # an estimate beyond this says no more than "too close to tell"
Verdict = Literal["within", "beyond", "cannot tell"]


def paired_drop(
    baseline_outputs: Tensor,
    candidate_outputs: Tensor,
    targets: Tensor,
    groups: Tensor | None,
    metric: NamedMetric,
    tolerance: float,
    seed: int,
) -> Drop:
    """The loss in quality from baseline to candidate on the same N samples, with its 95 % interval.

    ``outputs`` are [N, ...], ``targets`` [N, ...], ``groups`` [N] or None for independent samples. The drop
    is positive where the candidate is worse, whichever way the metric points, times 100 where the metric's
    unit is points; ``tolerance`` is in the same unit.

    Proportions (accuracy) of independent samples get Tango's score interval and McNemar's exact p. Over
    groups it is the paired bootstrap, on either side never narrower than Tango's. Every other metric gets
    the paired bootstrap. A single group or sample says nothing of others: then no verdict is given.

    Raises:
        InputError: a tolerance below 0 or not finite, or a metric without a finite value.
        DataError: outputs, targets and groups do not fit together.
    """
    call = f"paired_drop({metric.name}, {len(targets)} samples, tolerance={tolerance})"
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise InputError(call, f"the tolerance is {tolerance}", "Give the loss that is acceptable, 0 or more")
    if baseline_outputs.shape != candidate_outputs.shape:
        raise DataError(
            call,
            f"the baseline's outputs are {tuple(baseline_outputs.shape)}, "
            f"the candidate's {tuple(candidate_outputs.shape)}",
            "Compare networks of one output shape on the same samples",
        )
    value = compute(metric, baseline_outputs, targets) - compute(metric, candidate_outputs, targets)
    low, high = value, value  # a percentile interval of a skewed metric can miss the value it is of
    p: float | None = None
    methods = []
    if metric.proportion:
        b, c = discordant(metric, baseline_outputs, candidate_outputs, targets)
        value = (b - c) / len(targets)
        low, high = interval.tango(b, c, len(targets))
        methods.append("Tango's score interval")
    if metric.proportion and groups is None:
        p = interval.mcnemar_exact(b, c)
    else:
        below, above = paired_bootstrap(baseline_outputs, candidate_outputs, targets, groups, metric, seed)
        low, high = min(low, below), max(high, above)
        methods.insert(0, f"paired bootstrap over {'samples' if groups is None else 'groups'}")
    if not metric.higher_is_better:
        value, low, high = 0.0 - value, 0.0 - high, 0.0 - low  # no minus zero in a receipt
    factor = 100.0 if metric.unit == "points" else 1.0
    value, low, high = factor * value, factor * low, factor * high
    alone = count_units(targets, groups) < 2
    verdict: Verdict = "cannot tell" if alone else judge(low, high, tolerance)
    unsettled = verdict == "cannot tell" and not alone
    return Drop(
        value=value,
        low=low,
        high=high,
        unit=metric.unit,
        method=", never narrower than ".join(methods),
        verdict=verdict,
        mcnemar_p=p,
        samples_needed=samples_needed(value, low, high, tolerance, len(targets)) if unsettled else None,
    )


def metric_interval(
    outputs: Tensor, targets: Tensor, groups: Tensor | None, metric: NamedMetric, seed: int
) -> tuple[float, float]:
    """95 % interval of one model's metric, in the metric's own unit (accuracy in 0..1).

    Wilson's for a proportion of independent samples; the bootstrap over groups or samples otherwise, for a
    proportion never narrower than Wilson's. A single group or sample that is no proportion gives the value
    twice.

    Raises:
        InputError, DataError: as ``paired_drop``.
    """
    value = compute(metric, outputs, targets)
    low, high = value, value
    if metric.proportion and metric.per_sample is not None:
        low, high = interval.wilson(int(metric.per_sample(outputs, targets).sum()), len(targets))
    if not (metric.proportion and groups is None):
        below, above = bootstrap(outputs, targets, groups, metric, seed)
        low, high = min(low, below), max(high, above)
    return low, high


def discordant(metric: NamedMetric, baseline: Tensor, candidate: Tensor, targets: Tensor) -> tuple[int, int]:
    """How many samples only the baseline gets right, and how many only the candidate does."""
    assert metric.per_sample is not None
    was = metric.per_sample(baseline, targets) > 0
    now = metric.per_sample(candidate, targets) > 0
    return int((was & ~now).sum()), int((now & ~was).sum())


def judge(low: float, high: float, tolerance: float) -> Verdict:
    """``within`` where all of the drop's interval is at most the tolerance, ``beyond`` where all is above."""
    if high <= tolerance:
        return "within"
    return "beyond" if low > tolerance else "cannot tell"


def samples_needed(value: float, low: float, high: float, tolerance: float, samples: int) -> int | None:
    """About how many samples would settle the verdict, were the drop really ``value``.

    An interval's arm shrinks as 1/√n, so the arm towards the tolerance, ``arm`` at n samples, comes down to
    the distance at n (arm / distance)². None beyond 10 million, or where the value is on the tolerance.
    """
    distance = abs(tolerance - value)
    arm = high - value if value < tolerance else value - low
    if distance == 0 or arm / distance > math.sqrt(MOST_SAMPLES / samples):
        return None
    return max(samples + 1, math.ceil(samples * (arm / distance) ** 2))
