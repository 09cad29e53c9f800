"""The step that trains a network as its quantized self, on labels or on what the task's network says."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tinypress.distill import train_with_distillation
from tinypress.facts import Compressed
from tinypress.press.lessons import embeddings_loss, teaching_loss
from tinypress.press.step import Qat
from tinypress.protocols import MakeLoss
from tinypress.quantize import (
    QuantizedTraining,
    finish_training,
    prepare_training,
    train_quantized,
    training_hooks,
)
from tinypress.task import Task
from tinypress.train.checkpoint import Checkpoint
from tinypress.train.loop import Progress, Schedule, supervised
from tinypress.train.processes import Processes

_SAMPLES = 256  # by which the activations' steps begin


@dataclass(frozen=True)
class Course:
    """How long and how fast the step trains, where its state is kept, on what it is done, and who watches."""

    schedule: Schedule
    checkpoint: Checkpoint | None
    processes: Processes | None
    progress: Progress


def trained_quantized(
    step: Qat, before: Compressed, task: Task, make_loss: MakeLoss, course: Course
) -> Compressed:
    """The network after the training, with the plan of its integers."""
    assert task.train is not None
    how = QuantizedTraining(
        bits=dict(step.layers) if step.layers else step.bits,
        scheme=step.scheme,
        group_size=step.group_size,
        weights_only=step.weights_only,
        learned_step=step.learned_step,
        freeze=step.freeze,
        embeddings=step.embeddings,
        keep=step.keep,
    )
    order = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(course.schedule.seed))
    calibration = task.train.take(order[:_SAMPLES])
    if not step.distill:
        assert task.loss is not None
        return train_quantized(
            before,
            task.train,
            task.validation,
            supervised(task.loss),
            task.example_inputs,
            how,
            calibration=calibration,
            schedule=course.schedule,
            checkpoint=course.checkpoint,
            processes=course.processes,
            progress=course.progress,
        )
    ready = prepare_training(before, calibration, task.example_inputs, how)
    taught = train_with_distillation(
        ready,
        task.model,
        task.train,
        task.validation,
        loss=embeddings_loss()
        if step.loss == "embeddings"
        else teaching_loss(task, make_loss, step.temperature, step.alpha),
        schedule=course.schedule,
        hooks=training_hooks(ready, how),
        checkpoint=course.checkpoint,
        processes=course.processes,
        progress=course.progress,
    )
    return finish_training(taught)
