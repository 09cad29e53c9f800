"""Quality of a shipped file: its outputs over a whole split, and the metric computed from them."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tinypress.errors import DataError, InputError, ModelError
from tinypress.measure.metrics import METRICS, NamedMetric
from tinypress.protocols import Runner
from tinypress.task import Metric, Split

__all__ = ["Evaluation", "NamedMetric", "compute", "evaluate", "resolve_metric"]


@dataclass(frozen=True)
class Evaluation:
    """What a runner answered on a split: ``outputs`` float32 [N, ...], and the metric's value on them."""

    outputs: Tensor
    value: float


def evaluate(runner: Runner, split: Split, metric: NamedMetric, batch_size: int = 256) -> Evaluation:
    """Feed all of ``split`` through ``runner`` and compute ``metric``.

    Raises:
        InputError: ``batch_size`` below 1, or the metric gives NaN, infinity or no number.
        ModelError: an output is NaN or infinite; names the first sample.
        DataError: the runner gives another number of rows than it got samples, or the targets do not
            fit the metric (labels that are no class of the network).
    """
    call = f"evaluate({runner.runtime} runner, {len(split)} samples, {metric.name}, batch_size={batch_size})"
    if batch_size < 1:
        raise InputError(call, "the batch holds no sample", "Give a batch_size of at least 1")
    parts = []
    for start in range(0, len(split), batch_size):
        batch = split.take(slice(start, start + batch_size))
        answer = np.array(runner.run([x.detach().cpu().numpy() for x in batch.inputs]), dtype=np.float32)
        rows = len(answer) if answer.ndim else 0
        if rows != len(batch):
            raise DataError(
                call,
                f"{len(batch)} samples gave an output of shape {answer.shape}",
                "Let the network return one row per sample, the batch in the first dimension",
            )
        parts.append(torch.from_numpy(answer))
    outputs = torch.cat(parts)
    _check_finite(call, outputs)
    return Evaluation(outputs, compute(metric, outputs, split.targets))


def compute(metric: NamedMetric, outputs: Tensor, targets: Tensor) -> float:
    """The value of ``metric``, as a finite number.

    Raises:
        InputError: the metric gives NaN, infinity or no number.
        DataError: outputs and targets do not fit the metric.
    """
    call = f"{metric.name}(outputs={tuple(outputs.shape)}, targets={tuple(targets.shape)})"
    result: object = metric.function(outputs, targets)
    try:
        if isinstance(result, str | bytes):
            raise TypeError("text is no number, though float() reads some")
        value = float(result)  # type: ignore[arg-type]  # a user's function may return anything
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            call, f"the metric returned a {type(result).__name__}, no number", "Return one float"
        ) from error
    if not math.isfinite(value):
        raise InputError(
            call,
            f"the metric returned {value}",
            "Return a finite number, or choose a metric these data define",
        )
    return value


def resolve_metric(metric: str | Metric, higher_is_better: bool) -> NamedMetric:
    """The metric of a task. A named one knows its own direction; a bare function takes the one given.

    Raises:
        InputError: the name is unknown (the nearest is given), or ``higher_is_better`` is False for a
            built-in metric that is better when higher.
    """
    if isinstance(metric, NamedMetric):
        return metric
    if not isinstance(metric, str):
        if not callable(metric):
            raise InputError(
                f"resolve_metric({metric!r})", "that is neither a name nor a function", "Give one of the two"
            )
        name = getattr(metric, "__name__", type(metric).__name__)
        return NamedMetric(name, metric, higher_is_better, "metric")
    names = [known.name for known in METRICS]
    call = f"resolve_metric({metric!r}, higher_is_better={higher_is_better})"
    if metric not in names:
        near = difflib.get_close_matches(metric.lower(), names, n=1, cutoff=0.0)[0]
        raise InputError(
            call,
            "there is no such metric",
            f"Did you mean {near!r}? Known: {', '.join(names)}; or give a function",
        )
    found = METRICS[names.index(metric)]
    if found.higher_is_better and not higher_is_better:
        raise InputError(call, f"{metric} is better when higher", "Leave higher_is_better at True")
    return found


def _check_finite(call: str, outputs: Tensor) -> None:
    bad = ~torch.isfinite(outputs).reshape(len(outputs), -1).all(1)
    if bool(bad.any()):
        raise ModelError(
            call,
            f"the output of sample {int(bad.nonzero()[0])} is NaN or infinite, as those of "
            f"{int(bad.sum())} samples in all",
            "Look for overflow in the network, or compress it less",
        )
