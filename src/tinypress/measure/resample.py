"""The bootstrap: how a metric would differ had other samples, or other groups of samples, been drawn.

Samples that belong together are drawn together: whole groups with replacement, so that forty windows of
one recording do not count as forty witnesses. Two models are always valued on the same resample.

Legend: N samples, M models, U units (groups, or samples where there are none), R resamples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tinypress.errors import DataError, InputError
from tinypress.measure.interval import LEVEL, tail_share
from tinypress.measure.metrics import NamedMetric

RESAMPLES = 2000
Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


def bootstrap(
    outputs: Tensor,
    targets: Tensor,
    groups: Tensor | None,
    metric: NamedMetric,
    seed: int,
    resamples: int = RESAMPLES,
) -> tuple[float, float]:
    """Interval of ``metric`` itself, in its own unit, from resampled units.

    Raises:
        InputError: the metric has no finite value on most resamples.
        DataError: outputs, targets and groups differ in length.

    Reference: Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 13.3, with the
    levels of ``interval.tail_share``.
    """
    values = resampled((outputs,), targets, groups, metric, seed, resamples)[:, 0]
    return percentiles(values, count_units(targets, groups))


def paired_bootstrap(
    baseline_outputs: Tensor,
    candidate_outputs: Tensor,
    targets: Tensor,
    groups: Tensor | None,
    metric: NamedMetric,
    seed: int,
    resamples: int = RESAMPLES,
) -> tuple[float, float]:
    """Interval of metric(baseline) - metric(candidate), both on the same resampled units.

    Raises and reference: as ``bootstrap``.
    """
    values = resampled((baseline_outputs, candidate_outputs), targets, groups, metric, seed, resamples)
    return percentiles(values[:, 0] - values[:, 1], count_units(targets, groups))


def resampled(
    outputs: Sequence[Tensor],
    targets: Tensor,
    groups: Tensor | None,
    metric: NamedMetric,
    seed: int,
    resamples: int = RESAMPLES,
) -> Floats:
    """The metric of each of M models on each of R resamples, [R, M]. Equal seeds draw equal resamples."""
    call = f"bootstrap({metric.name}, {len(targets)} samples, resamples={resamples})"
    lengths = {len(x) for x in outputs} | {len(targets)} | ({len(groups)} if groups is not None else set())
    if len(lengths) != 1:
        raise DataError(
            call, f"outputs, targets and groups differ in length: {sorted(lengths)}", "Give one row each"
        )
    if resamples < 1:
        raise InputError(call, "there is nothing to draw", "Give at least 1 resample; 2000 is usual")
    unit_of = _unit_of(targets, groups)
    draws = _draws(int(unit_of.max()) + 1, resamples, np.random.default_rng(seed))
    if metric.per_sample is not None:
        terms = [metric.per_sample(x, targets).double().reshape(len(targets), -1) for x in outputs]
        means = torch.from_numpy(_means(torch.cat(terms, 1).numpy(), unit_of, draws))
        # [R, M, K] to [R, M]; without ``combine`` there is one term, which is the metric.
        means = means.reshape(len(means), len(outputs), -1)
        return _finite(call, (means[:, :, 0] if metric.combine is None else metric.combine(means)).numpy())
    return _values(call, outputs, targets, metric, unit_of, draws)


def percentiles(values: Floats, units: int, level: float = LEVEL) -> tuple[float, float]:
    """The interval that leaves out ``tail_share`` of ``values`` [R] at either end."""
    share = tail_share(units, level)
    low, high = np.quantile(values, [share, 1 - share])
    return float(low), float(high)


def count_units(targets: Tensor, groups: Tensor | None) -> int:
    """How many independent units there are: groups, or samples where there are none."""
    return len(targets) if groups is None else len(torch.unique(groups))


def _unit_of(targets: Tensor, groups: Tensor | None) -> Indices:
    """The unit's index 0..U-1 of each sample, [N]."""
    if groups is None:
        return np.arange(len(targets))
    unit_of: Indices = torch.unique(groups, return_inverse=True)[1].numpy()
    return unit_of


def _draws(units: int, resamples: int, generator: np.random.Generator) -> Iterator[Indices]:
    """Blocks [r, U] of drawn units, R rows in all; in blocks, as R x U indices at once may not fit."""
    rows = max(1, 2**20 // units)
    for start in range(0, resamples, rows):
        yield generator.integers(units, size=(min(rows, resamples - start), units))


def _means(values: Floats, unit_of: Indices, draws: Iterator[Indices]) -> Floats:
    """Means over the drawn samples of ``values`` [N, J], [R, J], from the sums of each unit alone."""
    ones = np.ones((len(values), 1))
    sums = np.stack([np.bincount(unit_of, weights=column) for column in np.hstack([ones, values]).T], 1)
    units, blocks = len(sums), []
    for drawn in draws:
        rows = np.arange(len(drawn))[:, None] * units
        times = np.bincount((drawn + rows).ravel(), minlength=len(drawn) * units).reshape(drawn.shape)
        totals = times.astype(np.float64) @ sums
        blocks.append(totals[:, 1:] / totals[:, :1])
    return np.concatenate(blocks)


def _values(
    call: str,
    outputs: Sequence[Tensor],
    targets: Tensor,
    metric: NamedMetric,
    unit_of: Indices,
    draws: Iterator[Indices],
) -> Floats:
    """The metric computed anew on each resample, [R, M]."""
    order, sizes = np.argsort(unit_of, kind="stable"), np.bincount(unit_of)
    starts = np.cumsum(sizes) - sizes
    # Rows are taken by NumPy: torch starts its threads for each of thousands of small gathers.
    arrays, wanted = [x.numpy() for x in outputs], targets.numpy()
    rows = []
    for block in draws:
        for drawn in block:
            # Every drawn unit's members in turn: where the unit starts in ``order``, and on from there.
            counts = sizes[drawn]
            offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            chosen = order[np.repeat(starts[drawn], counts) + offsets]
            its_targets = torch.from_numpy(wanted[chosen])
            rows.append([float(metric.function(torch.from_numpy(x[chosen]), its_targets)) for x in arrays])
    return _finite(call, np.array(rows))


def _finite(call: str, values: Floats) -> Floats:
    """The resamples [R, M] on which the metric has a value.

    Some metrics are undefined on a resample (one class left, all targets equal). Such resamples are left
    out as long as they are few; where they are many the interval would be of something else.
    """
    kept = values[np.isfinite(values).all(1)]
    if len(kept) < 0.9 * len(values):
        raise InputError(
            call,
            f"the metric is NaN or infinite on {len(values) - len(kept)} of {len(values)} resamples",
            "Give more samples or groups, or a metric that small samples define",
        )
    return kept
