"""In what order do two techniques go? Every pair in both orders on one network, made, shipped and measured.

A pair is given a training where it has none (``recover``, before integers are fixed), so that no order is judged by
weights that were never won back. The better order is chosen on validation; the difference is reported on test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import combinations, permutations
from pathlib import Path

from torch import Tensor

from tinypress.errors import InputError, RecipeError, TinypressError
from tinypress.facts import Compressed
from tinypress.files import write_json
from tinypress.measure.quality import NamedMetric
from tinypress.measure.verdict import paired_drop
from tinypress.press.bench import Bench
from tinypress.press.carry_out import carry_out
from tinypress.press.check import check_arguments, check_model, metric_of
from tinypress.press.compare import BASELINE
from tinypress.press.composed import Combined, Compositions, Orders
from tinypress.press.composition import Promise, contract_of, refusal
from tinypress.press.engine import Engine
from tinypress.press.identity import task_identity
from tinypress.press.measured import Opened, open_artifact
from tinypress.press.recipe import Recipe, Shipment, step_from
from tinypress.press.rehearse import without_training
from tinypress.press.run_folder import RunFolder, open_run
from tinypress.press.shipped import SUFFIX, write_artifact
from tinypress.press.step import (
    TECHNIQUES,
    Distill,
    Factorize,
    Gradual,
    Layers,
    Magnitude,
    Quantize,
    Recover,
    Shrink,
    Step,
    Structured,
    Student,
)
from tinypress.press.steps import apply_step, check_task
from tinypress.press.threads import torch_threads
from tinypress.task import Task
from tinypress.train.loop import Progress, silent


def usual_steps(epochs: int | None = None) -> tuple[Step, ...]:
    """One step of each technique, pruning in a pattern and 4-bit weights as well.

    A technique that can do without settings stands here by itself once ``TECHNIQUES`` has it. ``epochs`` is how long
    each training takes, by default as long as the task's.
    """
    given = (
        Magnitude(sparsity=0.8),
        Gradual(sparsity=0.8, epochs=epochs),
        Magnitude(sparsity=0.5, pattern="2:4"),
        Shrink(ratio=0.5),
        Structured(macs=0.5),
        Factorize(energy=0.8),
        Layers(count=1),
        Student(ratio=0.5),
        Recover(epochs=epochs),
        Distill(epochs=epochs),
    )
    last = (Quantize(), Quantize(weights_only=True, bits=4, group_size=32, method="mse"))
    known = {step.technique for step in (*given, *last)}
    long = {} if epochs is None else {"epochs": epochs}
    more = [
        step_from({"technique": name, **(long if "epochs" in kind.model_fields else {})})
        for name, kind in TECHNIQUES.items()
        if name not in known
    ]
    return (*given, *more, *last)


def label_of(step: Step) -> str:
    """A step in few words, which tell it from another of its technique: ``magnitude 2:4``."""
    said = {
        name: value
        for name, value in step.model_dump(exclude_defaults=True).items()
        if name not in ("technique", "epochs", "method", "group_size")
    }
    match step:
        case Magnitude(pattern=str(pattern)):
            return f"magnitude {pattern}"
        case Quantize():
            return f"{'weights' if step.weights_only else 'quantize'} {step.bits} bits"
        case _:
            values = " ".join(
                f"{value:g}" if isinstance(value, float) else str(value) for value in said.values()
            )
            return f"{step.technique} {values}".strip()


def try_compositions(
    task: Task,
    out: Path,
    *,
    steps: Sequence[Step] | None = None,
    engine: Engine | None = None,
    epochs: int | None = None,
    seed: int = 0,
    threads: int = 1,
    fresh: bool = False,
    progress: Progress = silent,
) -> Compositions:
    """Every pair of ``steps`` in both orders on the network of ``task``; the result is kept as OUT/composition.json.

    Args:
        steps: at least two, no two alike; by default ``usual_steps(epochs)``.
        epochs: of each training that ``steps`` does not give, by default the task's.
        fresh: start over where ``out`` holds an earlier run; otherwise that run is continued.

    What the rules refuse, and what this network or task cannot have, is in the result with the reason.

    Raises:
        InputError, TaskError, ModelError: an argument, the task or its network cannot be used.
        RunError: the folder cannot be used.
    """
    check_arguments(task, (BASELINE,), out, {"seed": seed, "threads": threads}, None)
    call = f"try_compositions({task.name!r}, epochs={epochs!r})"
    if epochs is not None and (isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1):
        raise InputError(call, "epochs is no number of epochs", "Give a whole number from 1, or None")
    chosen = tuple(steps) if steps is not None else usual_steps(epochs)
    labels = [label_of(step) for step in chosen]
    if len(set(labels)) != len(labels) or len(labels) < 2:
        raise RecipeError(
            call, f"two steps cannot be told apart, or there are fewer than two: {labels}", "Give each once"
        )
    check_model(task)
    metric = metric_of(task)
    bench = Bench(task, engine if engine is not None else Engine(), seed, progress)
    identity = {
        "compositions": [step.model_dump(mode="json") for step in chosen],
        **task_identity(task),
        "tinypress": version("tinypress"),
        "engine": bench.engine.name,
        "epochs": epochs,
        "seed": seed,
        "threads": threads,
    }
    with torch_threads(threads), open_run(out, identity, fresh=fresh) as folder:
        alone = {label: _refused_alone(step, bench) for label, step in zip(labels, chosen, strict=True)}
        named = dict(zip(labels, chosen, strict=True))
        baseline = _measured(folder, Compressed(task.model), _Made("fp32", "onnx"), bench, metric)
        cells: dict[tuple[str, str], Combined] = {}
        answers: dict[tuple[str, str], _Answers] = {}
        pairs = list(permutations(labels, 2))
        for count, (one, two) in enumerate(pairs):
            progress(f"pressing {one} > {two}", count, len(pairs))
            cell, opened = _pair(folder, (one, two), named, alone, bench, metric, baseline, epochs)
            cells[one, two] = cell
            if opened is not None:
                answers[one, two] = _Answers(opened.validation.value, opened.test.outputs)
        orders = tuple(
            _order((one, two), cells, answers, task, metric, seed)
            for one, two in combinations(labels, 2)
            if (one, two) in answers and (two, one) in answers
        )
        result = Compositions(
            tinypress=version("tinypress"),
            task=task.name,
            about=task.about,
            metric=metric.name,
            unit=metric.unit,
            seed=seed,
            epochs=epochs,
            baseline=baseline.test.value,
            samples=len(task.test),
            steps={label: step.model_dump(mode="json") for label, step in named.items()},
            pairs=tuple(cells.values()),
            orders=orders,
        )
        write_json(out / "composition.json", result.model_dump(mode="json"))
        progress("sealing the result", len(pairs), len(pairs))
        return result


def completed(one: Step, two: Step, recover: Recover | None) -> tuple[Step, ...]:
    """The pair as it is tried: with ``recover`` where neither trains, before integers are fixed.

    A student is trained for as long as its task trains from scratch, whatever the epochs of the others.
    """
    if recover is not None and contract_of(one).restarts:
        recover = recover.model_copy(update={"epochs": None})
        if isinstance(two, Gradual | Recover | Distill):
            two = two.model_copy(update={"epochs": None})
    if recover is None or contract_of(one).trains or contract_of(two).trains:
        return (one, two)
    return (one, recover, two) if Promise.INTEGERS in contract_of(two).ensures else (one, two, recover)


def _pair(
    folder: RunFolder,
    labels: tuple[str, str],
    named: dict[str, Step],
    alone: dict[str, str | None],
    bench: Bench,
    metric: NamedMetric,
    baseline: Opened,
    epochs: int | None,
) -> tuple[Combined, Opened | None]:
    one, two = (named[label] for label in labels)
    trains = bench.task.train is not None and bench.task.loss is not None
    steps = completed(one, two, Recover(epochs=epochs) if trains else None)
    cell = Combined(
        first=labels[0], second=labels[1], recipe=tuple(step.model_dump(mode="json") for step in steps)
    )
    forbidden = refusal(steps)
    if forbidden is not None:
        return cell.model_copy(update={"forbidden": forbidden.reason}), None
    impossible = next((reason for label in labels if (reason := alone[label]) is not None), None)
    if impossible is not None:
        return cell.model_copy(update={"impossible": impossible}), None
    name = "-then-".join(_plain(label) for label in labels)
    made = _Made(name, "onnx" if Promise.INTEGERS in contract_of(two).ensures else "archive")
    try:
        state, seconds = carry_out(folder, Recipe(name=name[:60], steps=steps), bench)
        opened = _measured(folder, state, made, bench, metric)
    except InputError as error:  # such as a cut that leaves nothing for the next
        return cell.model_copy(update={"impossible": error.problem}), None
    drop = paired_drop(
        baseline.test.outputs,
        opened.test.outputs,
        bench.task.test.targets,
        bench.task.test.groups,
        metric,
        bench.task.tolerance,
        bench.seed,
    )
    update = {
        "validation": opened.validation.value,
        "quality": opened.test.value,
        "drop": drop,
        "bytes": opened.path.stat().st_size,
        "ships": made.shipment,
        "seconds": seconds,
    }
    return cell.model_copy(update=update), opened


@dataclass(frozen=True)
class _Made:
    name: str
    shipment: Shipment


@dataclass(frozen=True)
class _Answers:
    """What is kept of an artifact once it is closed: its quality on validation, its outputs on test."""

    validation: float
    test: Tensor


def _plain(label: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._" else "-" for letter in label.lower())


def _measured(folder: RunFolder, state: Compressed, made: _Made, bench: Bench, metric: NamedMetric) -> Opened:
    """The network shipped, opened in its runtime, with its answers on validation and test."""
    path = folder.artifacts / f"{made.name}{SUFFIX[made.shipment]}"
    write_artifact(folder, made.name, path, made.shipment, state, bench.task)
    return open_artifact(path, made.shipment, bench.task, metric, 1)


def _refused_alone(step: Step, bench: Bench) -> str | None:
    """Why the task or its network cannot have ``step`` at all, found without training."""
    try:
        if not contract_of(step).restarts:
            check_task(bench, Recipe(name="alone", steps=(step,)))
        elif bench.task.build is None:
            return "the task gives no build() to start a student from"
        cheap = without_training(step)
        if cheap is not None:
            apply_step(cheap, Compressed(bench.task.model), replace(bench), from_scratch=False)
    except TinypressError as error:
        return error.problem
    return None


def _order(
    labels: tuple[str, str],
    cells: dict[tuple[str, str], Combined],
    answers: dict[tuple[str, str], _Answers],
    task: Task,
    metric: NamedMetric,
    seed: int,
) -> Orders:
    """Which order is better on validation, and by how much on test."""
    sign = 1 if metric.higher_is_better else -1
    better = max((labels, labels[::-1]), key=lambda pair: sign * answers[pair[0], pair[1]].validation)
    best, other = answers[better[0], better[1]], answers[better[1], better[0]]
    gain = paired_drop(
        best.test,
        other.test,
        task.test.targets,
        task.test.groups,
        metric,
        task.tolerance,
        seed,
    )
    tie = best.validation == other.validation
    return Orders(first=better[0], second=better[1], tie_on_validation=tie, gain=gain)
