"""What each way of choosing ranges, and each remedy, is worth in an 8-bit file; and what rounding is worth in few bits.

Every row is a shipped ONNX file, judged on the test split in ONNX Runtime beside the float file: its metric with a 95 %
interval, the paired drop, and the share of test samples for which both name the same class. What a row does not gain
over the first of its block is shown as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from tinypress.facts import Compressed
from tinypress.measure.metrics import NamedMetric
from tinypress.measure.quality import Evaluation, evaluate
from tinypress.measure.verdict import metric_interval, paired_drop
from tinypress.press.check import metric_of
from tinypress.quantize import quantize_model, quantize_weights
from tinypress.runtimes.onnx import open_onnx
from tinypress.ship.to_onnx import to_onnx
from tinypress.task import Split, Task
from tinypress.tasks.find import find_task

SAMPLES = 128
FEW_BITS = 3


def measure(names: tuple[str, ...]) -> dict[str, Any]:
    """The rows of each task."""
    return {name: _rows(find_task(name)) for name in names}


def _rows(task: Task) -> dict[str, Any]:
    assert task.train is not None
    order = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(0))
    calibration = task.train.take(order[:SAMPLES])
    metric = metric_of(task)
    original = _judged(task, Compressed(task.model), metric)
    rows = {"float": _row(task, original, original, metric)}
    for name, make in _ways(task, calibration).items():
        rows[name] = _row(task, original, _judged(task, make(), metric), metric)
    return rows


def _ways(task: Task, samples: Split) -> dict[str, Callable[[], Compressed]]:
    def whole(**settings: Any) -> Callable[[], Compressed]:
        return lambda: quantize_model(
            task.model, samples, task.example_inputs, reference=task.train, **settings
        )

    def weights(**settings: Any) -> Callable[[], Compressed]:
        return lambda: quantize_weights(
            task.model, FEW_BITS, group_size=None, calibration=samples, reference=task.train, **settings
        )

    ranges = ("minmax", "moving", "percentile", "mse", "entropy")
    few = f"{FEW_BITS} bits a weight"
    return {
        **{f"8 bits, {method}": whole(ranges=method) for method in ranges},
        "8 bits, equalized": whole(equalize=True),
        "8 bits, bias corrected": whole(bias_correction=True),
        "8 bits, batch norm again": whole(batch_norm=samples),
        "8 bits, one scale a layer": whole(per_channel=False),
        "8 bits, one scale, equalized": whole(per_channel=False, equalize=True),
        "8 bits, one scale, equalized, bias corrected": whole(
            per_channel=False, equalize=True, bias_correction=True
        ),
        few: weights(),
        f"{few}, bias corrected": weights(bias_correction=True),
        f"{few}, equalized": weights(equalize=True),
        f"{few}, batch norm again": weights(batch_norm=samples),
        f"{few}, mse": weights(method="mse"),
        f"{few}, gptq": weights(method="gptq"),
        f"{few}, adaround": weights(method="adaround"),
        f"{few}, adaround, batch norm again": weights(method="adaround", batch_norm=samples),
    }


def _judged(task: Task, compressed: Compressed, metric: NamedMetric) -> Evaluation:
    proto = to_onnx(compressed, task.example_inputs)
    return evaluate(open_onnx(proto.SerializeToString()), task.test, metric, batch_size=32)


def _row(task: Task, original: Evaluation, found: Evaluation, metric: NamedMetric) -> dict[str, Any]:
    same = (original.outputs.argmax(1) == found.outputs.argmax(1)).double()
    drop = paired_drop(
        original.outputs, found.outputs, task.test.targets, task.test.groups, metric, task.tolerance, 0
    )
    return {
        "value": found.value,
        "interval": metric_interval(found.outputs, task.test.targets, task.test.groups, metric, 0),
        "drop": drop.model_dump(),
        "same_class": float(same.mean()),
        "same_class_interval": metric_interval(
            _as_logits(same), torch.ones(len(same)).long(), task.test.groups, _SAME, 0
        ),
    }


def _as_logits(same: Tensor) -> Tensor:
    """[N, 2], of which the second is the larger where the two agree."""
    return torch.stack([1 - same, same], 1)


def _right(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.argmax(1) == targets).double()


_SAME = NamedMetric(
    "same_class", lambda o, t: float(_right(o, t).mean()), True, "points", _right, proportion=True
)


def table(name: str, rows: dict[str, Any]) -> Table:
    """One line a row, in percent and points."""
    shown = Table("way", "metric %", "95 %", "drop in points", "95 %", "same class %", "95 %")
    shown.title = f"{name} on test, {SAMPLES} calibration samples"
    for way, row in rows.items():
        drop = row["drop"]
        shown.add_row(
            way,
            f"{100 * row['value']:.1f}",
            _percent(row["interval"]),
            f"{drop['value']:.1f}",
            f"{drop['low']:.1f} to {drop['high']:.1f}",
            f"{100 * row['same_class']:.1f}",
            _percent(row["same_class_interval"]),
        )
    return shown


def _percent(interval: tuple[float, float]) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"
