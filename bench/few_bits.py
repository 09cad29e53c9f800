"""Few bits: what is lost by rounding, by a better range, by bits of their own for layers, and after a training.

The layers' own bits are chosen under the bytes of the uniform ones; the training is on what the float network says.

Weights alone, a scale each output channel; all are run as the ONNX file that ships, on the test split. Trainings take
the task's epochs of recovery, or those that are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from rich.table import Table

from tinypress.facts import Compressed
from tinypress.measure.quality import evaluate, resolve_metric
from tinypress.measure.verdict import paired_drop
from tinypress.press.engine import Engine
from tinypress.press.step import Qat
from tinypress.press.steps import Bench, apply_step
from tinypress.quantize import LayerBits, choose_bits, measure_sensitivity, quantize_weights
from tinypress.runtimes.onnx import open_onnx
from tinypress.ship.to_onnx import to_onnx
from tinypress.task import Task
from tinypress.tasks.find import find_task

_SAMPLES = 256


def measure(names: tuple[str, ...], bits: tuple[int, ...], epochs: int | None = None) -> dict[str, Any]:
    """For each task and number of bits: quality of each way, and what it loses to the float network in points."""
    return {name: _of_task(find_task(name), bits, epochs) for name in names}


def _of_task(task: Task, bits: tuple[int, ...], epochs: int | None) -> dict[str, Any]:
    assert task.train is not None
    order = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(0))
    measured = measure_sensitivity(task.model, task.train.take(order[:_SAMPLES]), task.example_inputs)
    whole = _outputs(task, Compressed(task.model))
    rows = [
        {"bits": each, "way": way, **_row(task, make(), whole)}
        for each in bits
        for way, make in _ways(task, each, measured, epochs).items()
    ]
    return {
        "quality": whole[1],
        "unit": resolve_metric(task.metric, task.higher_is_better).unit,
        "rows": rows,
    }


def _ways(
    task: Task, bits: int, measured: tuple[LayerBits, ...], epochs: int | None
) -> Mapping[str, Callable[[], Compressed]]:
    def rounded(which: int | Mapping[str, int], method: Any) -> Callable[[], Compressed]:
        return lambda: quantize_weights(
            task.model, which, group_size=None, method=method, example_inputs=task.example_inputs
        )

    budget = sum(each.weight_bytes for each in measured if each.bits == bits)
    step = Qat(bits=bits, weights_only=True, distill=True, epochs=epochs)
    return {
        "nearest": rounded(bits, "nearest"),
        "least squares": rounded(bits, "mse"),
        "bits by layer": rounded(choose_bits(measured, budget).bits, "mse"),
        "taught": lambda: apply_step(
            step, Compressed(task.model), Bench(task, Engine(), seed=0), from_scratch=False
        ),
    }


def _row(task: Task, made: Compressed, whole: tuple[torch.Tensor, float]) -> dict[str, Any]:
    outputs, value = _outputs(task, made)
    metric = resolve_metric(task.metric, task.higher_is_better)
    drop = paired_drop(whole[0], outputs, task.test.targets, task.test.groups, metric, task.tolerance, 0)
    moved = (outputs - whole[0]).double().square().sum() / whole[0].double().square().sum()
    assert made.plan is not None
    return {
        "quality": value,
        "lost": {"value": drop.value, "low": drop.low, "high": drop.high},
        "output_error": float(moved),
        "layer_bits": {name: weight.bits for name, weight in made.plan.weights.items()},
    }


def _outputs(task: Task, made: Compressed) -> tuple[torch.Tensor, float]:
    runner = open_onnx(to_onnx(made, task.example_inputs).SerializeToString())
    found = evaluate(runner, task.test, resolve_metric(task.metric, task.higher_is_better))
    return found.outputs, found.value


def table(name: str, row: dict[str, Any]) -> Table:
    """What ``measure`` found for one task, a line each."""
    made = Table("bits", "way", "quality", f"lost, {row['unit']}", "95 %", "error of outputs")
    made.title = f"{name}, weights alone; the float network has {row['quality']:.4f}"
    for found in row["rows"]:
        lost = found["lost"]
        made.add_row(
            str(found["bits"]),
            found["way"],
            f"{found['quality']:.4f}",
            f"{lost['value']:.2f}",
            f"{lost['low']:.2f} to {lost['high']:.2f}",
            f"{found['output_error']:.4f}",
        )
    return made
