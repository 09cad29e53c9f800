"""What is lost when CREPE is cut to half its multiply-accumulates, before and after it learns from the original.

The cut network learns from the original's outputs on tones, a few hundred steps. Beside it stand the controls: the
cut without any training, Torch-Pruning's cuts of no more MACs with the same training, a cut of random channels with the
same training, and the same small network trained from nothing for as many steps. All are judged on the test split
through ONNX Runtime, against the original.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bench.peer import macs, within_macs
from bench.speedup import SHARE, losses_on, written
from tinypress.distill import train_with_distillation
from tinypress.measure.quality import Evaluation, evaluate
from tinypress.measure.verdict import metric_interval, paired_drop
from tinypress.runtimes.onnx import open_onnx
from tinypress.shrink import Budget, prune_structured
from tinypress.task import Split, Task
from tinypress.tasks import crepe
from tinypress.train.loop import Schedule

# behind it channels are flattened after time, and Torch-Pruning 1.6 takes the wrong inputs of the linear layer
LAST = "blocks.5.conv"
EPOCHS = 3
BATCH = 8
TUNING_RATE, FRESH_RATE = 1e-4, 1e-3  # of a network that has learnt, and of one that has not
MULTIPLE = 8


def measure(train_clips: int, validation_clips: int, test_clips: int) -> dict[str, Any]:
    """Raw pitch accuracy on test in the noise of ``NOISY_SNR_DB``, with drops from the original, in points."""
    task = crepe.load("full", crepe.NOISY_SNR_DB)
    train = crepe.sounds("train", crepe.NOISY_SNR_DB, train_clips)
    validation = crepe.sounds("validation", crepe.NOISY_SNR_DB, validation_clips)
    test = crepe.sounds("test", crepe.NOISY_SNR_DB, test_clips)
    chosen, random = (_cut(task.model, train, importance) for importance in ("taylor", "random"))
    fresh = _fresh(chosen)
    example = (train.inputs[0][:2],)
    most = SHARE * macs(task.model, example)
    theirs = within_macs(task.model, example, most, MULTIPLE)
    losses = losses_on(train, crepe.pitch_loss, 32)
    theirs_by_taylor = within_macs(task.model, example, most, MULTIPLE, losses, [LAST])

    def taught(student: nn.Module, rate: float) -> Callable[[], nn.Module]:
        schedule = Schedule(epochs=EPOCHS, learning_rate=rate, batch_size=BATCH)
        return lambda: (
            train_with_distillation(
                student, task.model, train, validation, loss=crepe.teacher_loss, schedule=schedule
            ).model
        )

    made: dict[str, Callable[[], nn.Module]] = {
        "cut by Taylor": lambda: chosen,
        "cut by Taylor, taught": taught(chosen, TUNING_RATE),
        "Torch-Pruning by L2": lambda: theirs,
        "Torch-Pruning by L2, taught": taught(theirs, TUNING_RATE),
        "Torch-Pruning by Taylor, last block kept": lambda: theirs_by_taylor,
        "Torch-Pruning by Taylor, last block kept, taught": taught(theirs_by_taylor, TUNING_RATE),
        "random channels": lambda: random,
        "random channels, taught": taught(random, TUNING_RATE),
        "the same network from nothing, taught": taught(fresh, FRESH_RATE),
    }
    original = _judged(task.model, test)
    results: dict[str, Any] = {"original": _row(task, original, original, test)}
    answers: dict[str, Evaluation] = {}
    for name, make in made.items():
        start = time.perf_counter()
        model = make()
        seconds = time.perf_counter() - start
        answers[name] = _judged(model, test)
        results[name] = {"training_s": seconds, **_row(task, original, answers[name], test)}
    return {
        "snr_db": crepe.NOISY_SNR_DB,
        "steps": EPOCHS * -(-len(train) // BATCH),
        "train_frames": len(train),
        "test_frames": len(test),
        "test_clips": test_clips,
        "widths": [block.conv.out_channels for block in chosen.blocks],  # type: ignore[union-attr]
        "networks": results,
        "lost_to_torch_pruning": _row(
            task,
            answers["Torch-Pruning by Taylor, last block kept, taught"],
            answers["cut by Taylor, taught"],
            test,
        )["drop"],
    }


def _cut(model: nn.Module, train: Split, importance: Any) -> nn.Module:
    losses = losses_on(train, crepe.pitch_loss, 32) if importance == "taylor" else ()
    example = (train.inputs[0][:2],)
    return prune_structured(
        model, example, budget=Budget(macs=SHARE), importance=importance, losses=losses, multiple=MULTIPLE
    ).model


def _fresh(model: nn.Module) -> nn.Module:
    """An untrained network of the widths of ``model``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return crepe.CrepeNet([block.conv.out_channels for block in model.blocks])  # type: ignore[union-attr]


def _judged(model: nn.Module, test: Split) -> Evaluation:
    runner = open_onnx(written(model, test.inputs[0][:2]), threads=1)
    return evaluate(runner, test, crepe.RAW_PITCH_ACCURACY, batch_size=16)


def _row(task: Task, original: Evaluation, found: Evaluation, test: Split) -> dict[str, Any]:
    metric = crepe.RAW_PITCH_ACCURACY
    outputs: tuple[Tensor, Tensor] = original.outputs, found.outputs
    drop = paired_drop(*outputs, test.targets, test.groups, metric, task.tolerance, 0)
    return {
        "accuracy": found.value,
        "interval": metric_interval(found.outputs, test.targets, test.groups, metric, 0),
        "drop": drop.model_dump(),
    }
