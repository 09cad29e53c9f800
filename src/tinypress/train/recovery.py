"""The schedule of a training after something was taken from a network, by what its task says of training."""

from __future__ import annotations

from tinypress.task import Training
from tinypress.train.schedule import Schedule


def task_schedule(training: Training, epochs: int, seed: int, *, from_scratch: bool = False) -> Schedule:
    """``epochs`` at the task's learning rate of recovery, or of a network that has not learnt yet."""
    return Schedule(
        epochs=epochs,
        learning_rate=training.learning_rate if from_scratch else training.recovery_learning_rate,
        batch_size=training.batch_size,
        weight_decay=training.weight_decay,
        seed=seed,
    )
