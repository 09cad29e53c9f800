"""A training on a teacher's answers with places for mistakes; with none of them it agrees with the statement."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tinypress import DistillationLoss
from tinypress_course.kit import Compressed, Schedule, Split


def _as_they_are(logits: Tensor) -> Tensor:
    return logits


def shuffled(schedule: Schedule, epoch: int, samples: int) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * schedule.seed + epoch)
    return torch.randperm(samples, generator=generator)


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a training is done; every default is as the statement asks."""

    copied: bool = True
    teacher_mode: bool | None = False  # in training mode; None leaves it as it came
    teacher_copied: bool = True
    teacher_frozen: bool = True
    teacher_taught: bool = False
    taught: Callable[[Tensor], Tensor] = _as_they_are
    swapped: bool = False
    shifted: bool = False  # the teacher's answers of the samples as they lie, beside shuffled ones
    labels: Callable[[Tensor, Tensor], Tensor] = lambda labels, taught: labels
    order: Callable[[Schedule, int, int], Tensor] = shuffled
    batch: Callable[[Schedule, int], int] = lambda schedule, samples: schedule.batch_size
    last_batch: bool = True
    epochs: Callable[[int], int] = lambda epochs: epochs
    rate: Callable[[float], float] = lambda rate: rate
    learns: bool = True
    zeroed: bool = True
    modes: Literal["each epoch", "once", "never"] = "each epoch"
    judged_in_training: bool = False
    judged_on_train: bool = False
    judges: bool = True
    better: Callable[[float, float], bool] = lambda value, best: value < best
    returns: Literal["best", "last", "student", "teacher"] = "best"
    in_training: bool = False
    held: Literal["each step", "each epoch", "before", "never", "anew", "student", "late"] = "each step"
    accepts: Callable[[float], bool] = math.isfinite
    own_loss: Literal["nowhere", "everywhere", "training"] = "nowhere"
    asked_once: bool = False  # the teacher, with the graph of its answers kept


def teach(
    student: nn.Module,
    teacher: nn.Module,
    train: Split,
    validation: Split,
    *,
    loss: Any = None,
    schedule: Schedule | None = None,
    after_step: Callable[[nn.Module], Callable[[], None]] | None = None,
    how: Training,
) -> Compressed:
    """``train_with_distillation`` as ``how`` has it."""
    given = student
    if loss is None or how.own_loss == "everywhere":
        loss = DistillationLoss()
    schedule = schedule if schedule is not None else Schedule(epochs=10, learning_rate=1e-3)
    teacher = copy.deepcopy(teacher) if how.teacher_copied else teacher
    if how.teacher_mode is not None:
        teacher.train(how.teacher_mode)
    student = copy.deepcopy(student) if how.copied else student
    learning = [*student.parameters(), *(teacher.parameters() if how.teacher_taught else ())]
    optimizer = torch.optim.SGD(learning, lr=how.rate(schedule.learning_rate), momentum=0.7, foreach=False)
    keep = None
    if after_step is not None and how.held not in ("never", "anew", "late"):
        keep = after_step(given if how.held == "student" else student)
    best, best_state = (-math.inf if how.better(1, 0) else math.inf), _state(student)

    answers = {id(split): teacher(*split.inputs) for split in (train, validation) if how.asked_once}

    def value_of(split: Split, rows: Tensor | slice, answers_of: Tensor | slice) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not how.teacher_frozen):
            says = answers[id(split)][answers_of] if answers else teacher(split.inputs[0][answers_of])
            taught = how.taught(says)
        says, labels = student(split.inputs[0][rows]), how.labels(split.targets[rows], taught)
        if how.own_loss == "training" and student.training:
            return nn.functional.cross_entropy(says, labels)
        value: Tensor = loss(taught, says, labels) if how.swapped else loss(says, taught, labels)
        return value

    samples = len(train)
    size = how.batch(schedule, samples)
    if how.modes == "once":
        student.train()
    for epoch in range(how.epochs(schedule.epochs)):
        if how.modes == "each epoch":
            student.train()
        rows = how.order(schedule, epoch, samples)
        for start in range(0, samples if how.last_batch else samples // size * size, size):
            some = rows[start : start + size]
            value = value_of(train, some, slice(start, start + size) if how.shifted else some)
            if not how.accepts(value.item()):
                raise ValueError(f"the loss is {value.item()}")
            if how.zeroed:
                optimizer.zero_grad()
            if after_step is not None and how.held == "anew":
                keep = after_step(student)
            if keep is not None and how.held == "before":
                keep()
            if how.learns:
                value.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            if after_step is not None and keep is None and how.held == "late":
                keep = after_step(student)
            if keep is not None and how.held in ("each step", "anew", "student", "late"):
                keep()
        if keep is not None and how.held == "each epoch":
            keep()
        student.train(how.judged_in_training)
        split = train if how.judged_on_train else validation
        if how.judges:
            with torch.no_grad():
                reached = value_of(split, slice(None), slice(None)).item()
            if how.better(reached, best):
                best, best_state = reached, _state(student)
    if how.returns == "best" and how.judges:
        student.load_state_dict(best_state)
    came = {"student": given, "teacher": teacher}.get(how.returns, student)
    return Compressed(came.train(how.in_training))


def _state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}
