"""Trains a student on its teacher's outputs. The data are fixed, so the teacher is asked once for each sample."""

from __future__ import annotations

import copy
from collections.abc import Callable

from torch import Tensor, nn

from tinypress.distill.losses import DistillationLoss, teacher_outputs
from tinypress.errors import ModelError
from tinypress.facts import Change, Compressed
from tinypress.protocols import Loss
from tinypress.task import Split
from tinypress.train.checkpoint import Checkpoint
from tinypress.train.loop import Progress, Schedule, fit, silent


def train_with_distillation(
    student: nn.Module | Compressed,
    teacher: nn.Module,
    train: Split,
    validation: Split,
    *,
    loss: Loss | None = None,
    schedule: Schedule | None = None,
    after_step: Callable[[nn.Module], Callable[[], None]] | None = None,
    checkpoint: Checkpoint | None = None,
    progress: Progress = silent,
) -> Compressed:
    """Train a copy of ``student`` on the outputs of ``teacher`` and the labels; neither is changed.

    Args:
        loss: ``loss(student, teacher, labels)``, by default ``DistillationLoss()``.
        schedule: by default 10 epochs at a learning rate of 0.001.
        after_step: what must hold after each step, such as ``keep_zeros`` for a pruned student.

    Raises:
        ModelError: student and teacher give outputs of different shape, or the loss became NaN.
    """
    before = student if isinstance(student, Compressed) else Compressed(student)
    loss = loss if loss is not None else DistillationLoss()
    schedule = schedule if schedule is not None else Schedule(epochs=10, learning_rate=1e-3)
    taught = _with_teacher(train, teacher)
    judged = _with_teacher(validation, teacher)
    pupil = copy.deepcopy(before.model).eval()
    shape = teacher_outputs(pupil, tuple(x[:1] for x in train.inputs)).shape[1:]
    if shape != taught.inputs[-1].shape[1:]:
        raise ModelError(
            f"train_with_distillation({type(pupil).__name__}, {type(teacher).__name__})",
            f"the student's outputs are {tuple(shape)}, the teacher's {tuple(taught.inputs[-1].shape[1:])}",
            "Give the student the teacher's head",
        )

    def objective(model: nn.Module, inputs: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        return loss(model(*inputs[:-1]), inputs[-1], targets)

    fitted = fit(
        pupil,
        taught,
        judged,
        objective,
        schedule,
        after_step=after_step,
        checkpoint=checkpoint,
        progress=progress,
        what="distilling",
    )
    change = Change("", "distillation steps", 0, fitted.steps)
    return Compressed(fitted.model, (*before.changes, change), before.notes, before.pruned, before.plan)


def _with_teacher(split: Split, teacher: nn.Module) -> Split:
    """``split`` with the teacher's outputs as one more input column."""
    return Split((*split.inputs, teacher_outputs(teacher, split.inputs)), split.targets, split.groups)
