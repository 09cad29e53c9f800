"""Carries out one step of a recipe, and checks what the step must leave as it was."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from tinypress.distill import train_with_distillation
from tinypress.errors import TaskError
from tinypress.facts import Change, Compressed
from tinypress.press.bench import Bench
from tinypress.press.composition import check_state, contract_of
from tinypress.press.ensured import kept_notes
from tinypress.press.lessons import loss_of
from tinypress.press.quantized import quantized
from tinypress.press.recipe import Recipe
from tinypress.press.smaller import factorized, searched, shallower, structured
from tinypress.press.step import (
    Distill,
    Factorize,
    Gradual,
    Layers,
    Magnitude,
    Qat,
    Quantize,
    Recover,
    Shrink,
    Step,
    Structured,
    Student,
)
from tinypress.press.students import untrained
from tinypress.press.trained_quantized import Course, trained_quantized
from tinypress.press.zeros import check_score, zeroed, zeroed_gradually
from tinypress.prune import keep_zeros
from tinypress.shrink import OF_THE_LOSS, shrink_model
from tinypress.shrink.keep import check_paths
from tinypress.task import Task
from tinypress.train.augmented import augmented
from tinypress.train.loop import Schedule, fit, supervised
from tinypress.train.recovery import task_schedule


def check_task(bench: Bench, recipe: Recipe) -> None:
    """Refuse, before any work, a recipe that needs what the task does not give."""
    task = bench.task
    call = f"recipe {recipe.name!r} on task {task.name!r}"
    for step in recipe.steps:
        if isinstance(step, Structured | Factorize | Layers):
            check_paths(call, task.model, step.keep)
        if isinstance(step, Magnitude):
            check_score(call, step, bench.engine.score)
        taught_only = isinstance(step, Qat) and step.distill and step.alpha == 1
        if contract_of(step).trains and (task.train is None or (task.loss is None and not taught_only)):
            missing = "train data" if task.train is None else "loss"
            raise TaskError(
                call,
                f"{step.technique!r} trains, and the task gives no {missing}",
                "Add it to the Task, or leave the step out",
            )
        if _copies(step) > 1 and task.augment is None:
            raise TaskError(
                call,
                f"{step.technique!r} asks for {_copies(step)} copies of each sample, and the task gives no augment()",
                "Add augment to the Task, or leave copies out",
            )
        if isinstance(step, Structured) and step.importance in OF_THE_LOSS and task.loss is None:
            raise TaskError(
                call,
                f"importance {step.importance!r} is worked out from the loss, and the task gives none",
                "Add loss to the Task, or choose 'l2'",
            )
        if isinstance(step, Student) and task.build is None:
            raise TaskError(
                call,
                "'student' starts from an untrained network, and the task gives no build()",
                "Add build to the Task",
            )


def apply_step(step: Step, before: Compressed, bench: Bench, *, from_scratch: bool) -> Compressed:
    """The network after ``step``; ``before`` is not changed.

    ``from_scratch`` tells that the recipe began with an untrained student: it is then trained for as long as
    the baseline may have been, and its recovery, together.

    Raises:
        RecipeError: the network that comes in holds something that the step cannot keep.
        ModelError: the step broke something it must keep: the output's shape, pruned zeros, finite weights.
    """
    check_state(step, before)
    if _copies(step) > 1:
        bench = replace(bench, task=_with_copies(bench.task, _copies(step), bench.seed))
    match step:
        case Magnitude():
            after = zeroed(step, before, bench.seed, bench.engine.score)
            after = _join(before, after, pruned=before.pruned | after.pruned)
        case Gradual():
            schedule = _schedule(step.epochs, bench, from_scratch)
            after = zeroed_gradually(
                step, before, bench.task, schedule, bench.checkpoint, bench.processes, bench.progress
            )
        case Shrink():
            after = _shrink(step.ratio, step.importance, before, bench)
        case Structured():
            folder = None if bench.checkpoint is None else bench.checkpoint.folder
            smaller = searched if step.search else structured
            after = smaller(step, before, bench.task, bench.seed, folder, bench.progress)
            after = _join(before, after, pruned=after.pruned)
        case Factorize():
            after = _join(before, factorized(step, before, bench.task), pruned=before.pruned)
        case Layers():
            after = shallower(step, before, bench.task, bench.seed, bench.progress)
            after = _join(before, after, pruned=after.pruned)
        case Student():
            after = untrained(step, bench)
        case Recover():
            after = _recover(step, before, bench, from_scratch)
        case Distill():
            after = _distill(step, before, bench, from_scratch)
        case Qat():
            schedule = _schedule(step.epochs, bench, from_scratch, step.learning_rate)
            course = Course(schedule, bench.checkpoint, bench.processes, bench.progress)
            after = trained_quantized(step, before, bench.task, bench.engine.loss, course)
        case Quantize():
            after = quantized(step, before, bench)
    example = bench.task.example_inputs
    with torch.no_grad():
        shape = copy.deepcopy(bench.task.model).eval()(*example).shape
    notes = kept_notes(step, before, after, example, shape)
    return replace(after, notes=(*after.notes, *notes))


def _copies(step: Step) -> int:
    return step.copies if isinstance(step, Gradual | Recover | Distill | Qat) else 1


def _with_copies(task: Task, copies: int, seed: int) -> Task:
    """The task with so many of each training sample, varied."""
    assert task.train is not None
    assert task.augment is not None
    return replace(task, train=augmented(task.train, task.augment, copies, seed))


def _join(before: Compressed, after: Compressed, *, pruned: frozenset[str]) -> Compressed:
    return Compressed(
        after.model, (*before.changes, *after.changes), (*before.notes, *after.notes), pruned, after.plan
    )


def _shrink(ratio: float, importance: str, before: Compressed, bench: Bench) -> Compressed:
    samples = bench.task.train if bench.task.train is not None else bench.task.validation
    after = shrink_model(
        before.model,
        ratio,
        bench.task.example_inputs,
        importance=importance,
        calibration=samples.take(slice(0, 256)).inputs,
        seed=bench.seed,
        shrink=bench.engine.shrink,
    )
    return _join(before, after, pruned=before.pruned)


def _schedule(
    epochs: int | None, bench: Bench, from_scratch: bool, learning_rate: float | None = None
) -> Schedule:
    training = bench.task.training
    usual = training.max_epochs + training.recovery_epochs if from_scratch else training.recovery_epochs
    schedule = task_schedule(
        training, epochs if epochs is not None else usual, bench.seed, from_scratch=from_scratch
    )
    return schedule if learning_rate is None else replace(schedule, learning_rate=learning_rate)


def _recover(step: Recover, before: Compressed, bench: Bench, from_scratch: bool) -> Compressed:
    task = bench.task
    assert task.train is not None
    assert task.loss is not None
    fitted = fit(
        before.model,
        task.train,
        task.validation,
        supervised(task.loss),
        _schedule(step.epochs, bench, from_scratch),
        after_step=lambda model: keep_zeros(model, before.pruned),
        checkpoint=bench.checkpoint,
        processes=bench.processes,
        progress=bench.progress,
        what="recovering" if not from_scratch else "training from scratch",
    )
    change = Change("", "training steps", 0, fitted.steps)
    return replace(before, model=fitted.model, changes=(*before.changes, change))


def _distill(step: Distill, before: Compressed, bench: Bench, from_scratch: bool) -> Compressed:
    task = bench.task
    assert task.train is not None
    schedule = _schedule(step.epochs, bench, from_scratch, step.learning_rate)
    return train_with_distillation(
        before,
        task.model,
        task.train,
        task.validation,
        loss=loss_of(step, task, bench.engine),
        features=dict(step.hidden),
        schedule=schedule,
        after_step=lambda model: keep_zeros(model, before.pruned),
        cache=None if bench.checkpoint is None or step.loss == "labels" else bench.checkpoint.path.parent,
        checkpoint=bench.checkpoint,
        processes=bench.processes,
        progress=bench.progress,
    )
