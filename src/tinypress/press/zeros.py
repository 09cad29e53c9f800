"""The steps that set weights to zero: all at once, or little by little while the network trains."""

from __future__ import annotations

from torch import nn

from tinypress.facts import Compressed
from tinypress.press.step import Gradual, Magnitude
from tinypress.protocols import Score
from tinypress.prune import (
    prune_gradually,
    prune_model_by_magnitude,
    prune_weights_at_random,
    prune_weights_by_magnitude,
)
from tinypress.prune.model import check_pruning
from tinypress.task import Task
from tinypress.train.checkpoint import Checkpoint
from tinypress.train.loop import Progress, Schedule, supervised
from tinypress.train.processes import Processes


def check_score(call: str, step: Magnitude, score: Score) -> None:
    """Refuse, before any work, a pattern or LAMP where the engine ranks weights in its own way.

    Raises:
        InputError: they do not fit together.
    """
    ours = score is prune_weights_by_magnitude
    check_pruning(call, step.sparsity, ours and step.score == "magnitude", step.pattern, step.allocation)


def zeroed(step: Magnitude, before: Compressed, seed: int, score: Score) -> Compressed:
    """The network with its smallest weights, or random ones, at zero."""

    def at_random(layer: nn.Module, sparsity: float) -> Compressed:
        return prune_weights_at_random(layer, sparsity, seed=seed)

    return prune_model_by_magnitude(
        before.model,
        step.sparsity,
        scope=step.scope,
        score=at_random if step.score == "random" else score,
        pattern=step.pattern,
        allocation=step.allocation,
    )


def zeroed_gradually(
    step: Gradual,
    before: Compressed,
    task: Task,
    schedule: Schedule,
    checkpoint: Checkpoint | None,
    processes: Processes | None,
    progress: Progress,
) -> Compressed:
    """The network after a training in which its sparsity grew."""
    assert task.train is not None
    assert task.loss is not None
    return prune_gradually(
        before,
        task.train,
        task.validation,
        supervised(task.loss),
        schedule,
        step.sparsity,
        end=step.end,
        every=step.every,
        scope=step.scope,
        allocation=step.allocation,
        checkpoint=checkpoint,
        processes=processes,
        progress=progress,
    )
