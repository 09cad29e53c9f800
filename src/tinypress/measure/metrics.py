"""The built-in metrics, and what any metric is.

Legend: N samples, C classes, D numbers of an embedding, K terms. A metric takes outputs [N, ...] and
targets [N, ...]. Most are made of means over samples: ``per_sample`` gives what is averaged, [N] or
[N, K], and ``combine`` makes the metric of the means, [..., K] -> [...]; the bootstrap then needs only
sums and never computes such a metric again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tinypress.errors import DataError
from tinypress.task import Metric


@dataclass(frozen=True)
class NamedMetric:
    """A metric, which way it points, and the unit of a difference in it. It is itself a function of outputs and
    targets, so that a task can bring one of its own that has more to say than a bare function.

    In "points" a difference is shown times 100. Without ``combine`` the metric is the mean of ``per_sample``
    itself. ``proportion`` says that these values are only 0 and 1, so that the closed intervals for
    proportions hold.
    """

    name: str
    function: Metric
    higher_is_better: bool
    unit: Literal["points", "metric"]
    per_sample: Callable[[Tensor, Tensor], Tensor] | None = None
    combine: Callable[[Tensor], Tensor] | None = None
    proportion: bool = False

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        return self.function(outputs, targets)


def correct(outputs: Tensor, targets: Tensor) -> Tensor:
    """1.0 where the largest of the outputs [N, C] is the target's class, else 0.0; shape [N]."""
    _check_labels("accuracy", outputs, targets)
    return (outputs.argmax(1) == targets).to(torch.float64)


def hits_and_sizes(outputs: Tensor, targets: Tensor) -> Tensor:
    """Per sample and class 1 for a true positive, then how often (0 to 2) it is target or predicted; [N, 2C]."""
    _check_labels("macro_f1", outputs, targets)
    wanted = functional.one_hot(targets.long(), outputs.shape[1])
    predicted = functional.one_hot(outputs.argmax(1), outputs.shape[1])
    return torch.cat([wanted * predicted, wanted + predicted], 1).double()


def macro_f1(means: Tensor) -> Tensor:
    """Mean over classes of F1 = 2 TP / (2 TP + FP + FN), from the means of ``hits_and_sizes``.

    Classes that are neither among the targets nor predicted have no F1 and do not count.
    """
    hits, sizes = means.chunk(2, -1)
    return (2 * hits / sizes).nanmean(-1)


def absolute_errors(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute error of each sample, [N]."""
    values, wanted = _same_shape("mae", outputs, targets)
    return (values - wanted).abs().mean(1)


def squared_errors(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error of each sample, [N]."""
    values, wanted = _same_shape("mse", outputs, targets)
    return (values - wanted).square().mean(1)


def squares(outputs: Tensor, targets: Tensor) -> Tensor:
    """Per sample and output (y - ŷ)², then y, then y², with y less its mean; [N, 3 per output]."""
    values, wanted = _same_shape("r2", outputs, targets)
    centred = wanted - wanted.mean(0)
    return torch.cat([(wanted - values).square(), centred, centred.square()], 1)


def r2(means: Tensor) -> Tensor:
    """Coefficient of determination 1 - Σ(y - ŷ)² / Σ(y - ȳ)², from the means of ``squares``.

    The mean over outputs; NaN or minus infinity where the targets of an output are all equal.
    """
    left, mean, square = means.chunk(3, -1)
    spread = square - mean.square()
    spread = torch.where(spread > 1e-12 * square, spread, 0.0)  # rounding must not stand in for a spread
    return (1 - left / spread).mean(-1)


def spearman(outputs: Tensor, targets: Tensor) -> float:
    """Correlation of the ranks of one output per sample with those of the targets.

    Ties share their mean rank. NaN where all outputs or all targets are equal.

    Reference: Spearman, American Journal of Psychology 15:72 (1904).
    """
    values, wanted = _same_shape("spearman", outputs, targets)
    if values.shape[1] != 1:
        raise DataError(
            f"spearman(outputs={tuple(outputs.shape)})", "there are several outputs per sample", "Give one"
        )
    ranks, others = (_ranks(column[:, 0]) - (len(column) + 1) / 2 for column in (values, wanted))
    scale = float((ranks @ ranks) * (others @ others)) ** 0.5
    return float(ranks @ others) / scale if scale else math.nan


def cosines(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cosine similarity of each output [N, D] with its target [N, D]; 0 where either is all zeros. [N]."""
    values, wanted = _same_shape("cosine", outputs, targets)
    return (functional.normalize(values) * functional.normalize(wanted)).sum(1)


def own_is_nearest(outputs: Tensor, targets: Tensor) -> Tensor:
    """1.0 where, of all targets [N, D], a sample's own is nearest to its output by cosine, else 0.0; [N].

    A tie with another target is a miss, so that an embedding fallen into one point scores 0.
    """
    values, wanted = _same_shape("retrieval_at_1", outputs, targets)
    values, wanted = functional.normalize(values), functional.normalize(wanted)
    hits = []
    for start in range(0, len(values), 1024):  # N x N similarities at once would not fit for large N
        near = values[start : start + 1024] @ wanted.T
        rows = torch.arange(len(near))
        own = near[rows, rows + start]
        near[rows, rows + start] = -math.inf
        hits.append(own > near.max(1).values)
    return torch.cat(hits).to(torch.float64)


def _of_means(
    per_sample: Callable[[Tensor, Tensor], Tensor], combine: Callable[[Tensor], Tensor] | None = None
) -> Metric:
    def metric(outputs: Tensor, targets: Tensor) -> float:
        means = per_sample(outputs, targets).mean(0)
        return float(means if combine is None else combine(means))

    return metric


METRICS: tuple[NamedMetric, ...] = (
    NamedMetric("accuracy", _of_means(correct), True, "points", correct, proportion=True),
    NamedMetric("macro_f1", _of_means(hits_and_sizes, macro_f1), True, "points", hits_and_sizes, macro_f1),
    NamedMetric("mae", _of_means(absolute_errors), False, "metric", absolute_errors),
    NamedMetric("mse", _of_means(squared_errors), False, "metric", squared_errors),
    NamedMetric("r2", _of_means(squares, r2), True, "metric", squares, r2),
    NamedMetric("spearman", spearman, True, "metric"),
    NamedMetric("cosine", _of_means(cosines), True, "metric", cosines),
    NamedMetric("retrieval_at_1", _of_means(own_is_nearest), True, "points", own_is_nearest, proportion=True),
)


def _ranks(values: Tensor) -> NDArray[np.float64]:
    """Ranks from 1 of ``values`` [N], equal values sharing the mean of theirs."""
    order = np.argsort(values.numpy())
    ordered = values.numpy()[order]
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    counts = np.diff(first, append=len(order))
    ranks = np.empty(len(order))
    ranks[order] = np.repeat(first + (counts + 1) / 2, counts)
    return ranks


def _same_shape(name: str, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Both as float64 [N, everything else]; [N] and [N, 1] are the same, and nothing is broadcast."""
    call = f"{name}(outputs={tuple(outputs.shape)}, targets={tuple(targets.shape)})"
    if [d for d in outputs.shape[1:] if d != 1] != [d for d in targets.shape[1:] if d != 1]:
        raise DataError(call, "outputs and targets differ in shape", "Give targets shaped as the outputs")
    if len(outputs) != len(targets):
        raise DataError(call, "outputs and targets differ in number", "Give one target per sample")
    return outputs.detach().double().reshape(len(outputs), -1), targets.double().reshape(len(targets), -1)


def _check_labels(name: str, outputs: Tensor, targets: Tensor) -> None:
    call = f"{name}(outputs={tuple(outputs.shape)}, targets={tuple(targets.shape)})"
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise DataError(call, "the outputs are not one row of class scores per sample", "Give outputs [N, C]")
    if targets.ndim != 1 or targets.is_floating_point() or targets.dtype == torch.bool:
        raise DataError(
            call,
            f"the targets are {targets.dtype} of shape {tuple(targets.shape)}, not class indices",
            "Give integer targets [N]; of one-hot targets take argmax(1)",
        )
    if len(outputs) != len(targets):
        raise DataError(call, "outputs and targets differ in number", "Give one target per sample")
    wrong = (targets < 0) | (targets >= outputs.shape[1])
    if bool(wrong.any()):
        first = int(wrong.nonzero()[0])
        raise DataError(
            call,
            f"the target of sample {first} is {int(targets[first])}, "
            f"but the network has {outputs.shape[1]} classes (0 to {outputs.shape[1] - 1})",
            "Number the classes from 0, one output each",
        )
