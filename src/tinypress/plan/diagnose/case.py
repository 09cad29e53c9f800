"""The case that is looked into: a candidate of a finished run, and how a change of its steps is tried on validation."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tinypress.facts import Compressed
from tinypress.measure.quality import Evaluation, NamedMetric, evaluate
from tinypress.press.bench import Bench
from tinypress.press.carry_out import carry_out
from tinypress.press.recipe import Recipe, Shipment, check_order
from tinypress.press.run_folder import RunFolder
from tinypress.press.shipped import SUFFIX, write_network
from tinypress.press.step import Step
from tinypress.press.steps import check_task
from tinypress.press.threads import torch_threads
from tinypress.runtimes.archive import open_archive
from tinypress.runtimes.onnx import open_onnx
from tinypress.task import Task


@dataclass(frozen=True)
class Case:
    """A candidate with all that is needed to make it again in another way.

    ``run`` is the finished run that it is of, ``folder`` where the tries are kept; ``baseline`` is what the
    baseline's artifact answers on validation, ``beside_bytes`` what ships beside each network (a tokenizer), and
    ``signed_weights`` how the candidate's integer file stores its weights.
    """

    task: Task
    metric: NamedMetric
    bench: Bench
    run: RunFolder
    folder: RunFolder
    shipment: Shipment
    baseline: Evaluation
    beside_bytes: int = 0
    signed_weights: bool | None = None

    @property
    def factor(self) -> float:
        """Turns a difference of the metric into the tolerance's unit; positive is worse."""
        return (100.0 if self.metric.unit == "points" else 1.0) * (1 if self.metric.higher_is_better else -1)

    def loss(self, validation: float) -> float:
        """What is lost on validation against the baseline, in the tolerance's unit."""
        return self.factor * (self.baseline.value - validation)


@dataclass(frozen=True)
class Attempt:
    """A changed recipe carried out, shipped and run on validation."""

    steps: tuple[Step, ...]
    compressed: Compressed
    path: Path
    evaluation: Evaluation
    seconds: float


def network_after(case: Case, steps: Sequence[Step]) -> Compressed:
    """The network after ``steps``; those that the run, or an earlier try, has finished are read from disk."""
    recipe = Recipe(name="diagnosis", steps=tuple(steps), ship=(case.shipment,))
    check_order(f"diagnose {case.task.name!r}", recipe)
    check_task(case.bench, recipe)
    return carry_out(case.folder, recipe, case.bench, also=case.run)[0]


def attempt(case: Case, steps: Sequence[Step], name: str = "try") -> Attempt:
    """Carry out ``steps``, write the file that would ship, and run it on validation.

    Raises:
        TinypressError: a step refuses the network, or the order of the steps is a forbidden one.
    """
    start = time.perf_counter()
    compressed = network_after(case, steps)
    path = case.folder.artifacts / f"{name}{SUFFIX[case.shipment]}"
    write_network(path, case.shipment, compressed, case.task, case.signed_weights)
    answered = run_on_validation(case, path)
    return Attempt(tuple(steps), compressed, path, answered, time.perf_counter() - start)


def run_on_validation(case: Case, path: Path) -> Evaluation:
    """What the artifact at ``path`` answers on validation, in its runtime."""
    with torch_threads():  # opening an archive sets them
        runner = open_onnx(path) if case.shipment == "onnx" else open_archive(path, case.task.model)
        return evaluate(runner, case.task.validation, case.metric)
