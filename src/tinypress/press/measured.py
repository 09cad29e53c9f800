"""Measures one artifact: everything that the receipt says of a candidate is found here, on the file that ships."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tinypress.files import sha256
from tinypress.measure.archived import read_archived
from tinypress.measure.artifact import ArtifactFacts, read_onnx
from tinypress.measure.energy import estimate_energy
from tinypress.measure.latency import alone, interleave
from tinypress.measure.machine import machine
from tinypress.measure.memory import PeakMemory, peak_memory
from tinypress.measure.quality import Evaluation, NamedMetric, evaluate
from tinypress.measure.resample import count_units
from tinypress.measure.verdict import metric_interval, paired_drop
from tinypress.press.recipe import Shipment
from tinypress.press.threads import torch_threads
from tinypress.protocols import Runner
from tinypress.receipt import Artifact, Drop, Equality, Latency, Quality, Quantity, Validation
from tinypress.runtimes.archive import open_archive
from tinypress.runtimes.onnx import open_onnx
from tinypress.ship.equal import MOST_SAMPLES, equality_of_file
from tinypress.task import Split, Task

Example = tuple[NDArray[np.generic], ...]


@dataclass(frozen=True)
class Opened:
    """An artifact in its runtime, with what it answered on the two splits."""

    path: Path
    runner: Runner
    validation: Evaluation
    test: Evaluation


@dataclass(frozen=True)
class Judged:
    """The numbers of an artifact that are the same on every run."""

    artifact: Artifact
    facts: ArtifactFacts
    validation: Validation
    quality: Quality
    drop: Drop | None
    equality: Equality | None


def open_artifact(path: Path, shipment: Shipment, task: Task, metric: NamedMetric, threads: int) -> Opened:
    """Open ``path`` in its runtime and feed validation and test through it."""
    with torch_threads():  # opening an archive sets them
        runner: Runner = (
            open_onnx(path, threads) if shipment == "onnx" else open_archive(path, task.model, threads)
        )
        return Opened(
            path, runner, evaluate(runner, task.validation, metric), evaluate(runner, task.test, metric)
        )


def answers_on_test(path: Path, runtime: str, task: Task, metric: NamedMetric) -> Tensor:
    """What the artifact at ``path`` answers on the test split, float32 [N, ...], in its runtime on one thread."""
    with torch_threads():
        runner: Runner = open_onnx(path) if runtime == "onnxruntime" else open_archive(path, task.model)
        return evaluate(runner, task.test, metric).outputs


def judge_artifact(
    opened: Opened,
    baseline: Opened | None,
    name_in_run: str,
    task: Task,
    metric: NamedMetric,
    tolerance: float,
    seed: int,
) -> Judged:
    """Size, facts and quality of an artifact; ``baseline`` is None for the baseline itself."""
    data = opened.path.read_bytes()
    test, groups = task.test, task.test.groups
    facts = (
        read_onnx(opened.path, example_of(task))
        if opened.runner.runtime == "onnxruntime"
        else read_archived(opened.path, task.model, task.example_inputs)
    )
    low, high = metric_interval(opened.test.outputs, test.targets, groups, metric, seed)
    runtime: Literal["onnxruntime", "torch"] = (
        "onnxruntime" if opened.runner.runtime == "onnxruntime" else "torch"
    )
    return Judged(
        artifact=Artifact(path=name_in_run, runtime=runtime, bytes=len(data), sha256=sha256(data)),
        facts=facts,
        validation=Validation(
            value=opened.validation.value,
            samples=len(task.validation),
            groups=count_units(task.validation.targets, task.validation.groups),
        ),
        quality=Quality(
            value=opened.test.value,
            low=low,
            high=high,
            samples=len(test),
            groups=count_units(test.targets, groups),
            evaluated_in=opened.runner.runtime,
        ),
        drop=None
        if baseline is None
        else paired_drop(
            baseline.test.outputs, opened.test.outputs, test.targets, groups, metric, tolerance, seed
        ),
        equality=_equality(opened, task),
    )


def _equality(opened: Opened, task: Task) -> Equality | None:
    if opened.runner.runtime != "onnxruntime":
        return None
    some = tuple(column.numpy() for column in task.validation.take(slice(0, MOST_SAMPLES)).inputs)
    return equality_of_file(opened.path, some, machine(1).isa)


def time_artifact(opened: Opened, baseline: Opened | None, task: Task, threads: int) -> Latency:
    """Milliseconds of one sample, in turn with the baseline."""
    example = example_of(task)
    with torch_threads(threads):
        if baseline is None:
            return alone(lambda: opened.runner.run(example), batch=1, threads=threads)
        tries = []
        for _ in range(3):
            tries.append(
                interleave(
                    lambda: baseline.runner.run(example),
                    lambda: opened.runner.run(example),
                    batch=1,
                    threads=threads,
                )
            )
            if _width(tries[-1]) < 0.15:
                break
        # another program's burst shows as a wide interval; which try is kept never depends on its value
        return min(tries, key=_width)


def _width(latency: Latency) -> float:
    """Width of the ratio's interval, relative to the ratio."""
    ratio = latency.ratio_to_baseline
    return (ratio.high - ratio.low) / ratio.value


def memory_of(opened: Opened, task: Task, threads: int) -> PeakMemory:
    """Peak memory of running the artifact in a fresh process."""
    if opened.runner.runtime != "onnxruntime":
        return PeakMemory(None, "it is measured in ONNX Runtime only")
    inputs = [(tuple(array.shape), str(array.dtype)) for array in example_of(task)]
    return peak_memory(opened.path, inputs, threads)


def energy_of(facts: ArtifactFacts) -> Quantity:
    """The energy estimate of one inference."""
    return estimate_energy(facts.macs_int8, facts.macs_float, facts.weight_bytes, facts.activation_bytes)


def example_of(task: Task) -> Example:
    """The first test sample, a batch of one."""
    return tuple(column[:1].numpy() for column in _first(task.test).inputs)


def _first(split: Split) -> Split:
    return split.take(slice(0, 1))
