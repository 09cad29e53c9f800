"""DistilBERT's idea: keep every second layer of the teacher, then let the teacher teach.

Sanh et al., "DistilBERT, a distilled version of BERT" (2019), section 2: the student starts from one layer out of two.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from tinypress import Recipe, Schedule, Task, press, train_with_distillation


@dataclass(frozen=True)
class Halved:
    """File bytes, time against the teacher's, and accuracy on validation (0..100) of three networks."""

    file_bytes: dict[str, int]
    time_ratio: dict[str, float]
    accuracy: dict[str, float]


class Block(nn.Module):
    """A convolution that adds to what comes in, so that blocks can be taken out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, width, 5, padding=2, bias=False)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, width, time] to the same shape."""
        return x + torch.relu(self.norm(self.conv(x)))


def deep(channels: int, classes: int, blocks: int, width: int = 32) -> nn.Sequential:
    """A stem, ``blocks`` equal blocks and a head."""
    layers: list[tuple[str, nn.Module]] = [
        ("stem", nn.Conv1d(channels, width, 5, stride=2, padding=2)),
        *((f"block{number}", Block(width)) for number in range(blocks)),
        ("average", nn.AdaptiveAvgPool1d(1)),
        ("flatten", nn.Flatten()),
        ("head", nn.Linear(width, classes)),
    ]
    return nn.Sequential(OrderedDict(layers))


def every_second(teacher: nn.Module) -> nn.Sequential:
    """A copy of ``teacher`` without its blocks of odd number."""
    odd = {name for name, _ in teacher.named_children() if name.startswith("block") and int(name[5:]) % 2}
    kept = [(name, copy.deepcopy(child)) for name, child in teacher.named_children() if name not in odd]
    return nn.Sequential(OrderedDict(kept))


def halve(task: Task, folder: Path, blocks: int = 6, epochs: int = 8) -> Halved:
    """Teacher, the halved student taught by it, and the same student from scratch without a teacher.

    All three get ``epochs`` epochs on the task's labels; the students' are the same number of steps.
    """
    assert task.train is not None
    torch.manual_seed(0)
    channels, classes = task.example_inputs[0].shape[1], len(task.classes)
    schedule = Schedule(epochs=epochs, learning_rate=1e-3)

    def labels_alone(
        student_logits: torch.Tensor, teacher_logits: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        return nn.functional.cross_entropy(student_logits, labels)

    fresh = deep(channels, classes, blocks)
    teacher = train_with_distillation(
        fresh, fresh, task.train, task.validation, loss=labels_alone, schedule=schedule
    ).model
    taught = train_with_distillation(
        every_second(teacher), teacher, task.train, task.validation, schedule=schedule
    ).model
    alone = train_with_distillation(
        deep(channels, classes, (blocks + 1) // 2), teacher, task.train, task.validation,
        loss=labels_alone, schedule=schedule,
    ).model  # fmt: skip
    networks = {"teacher": teacher, "half, taught": taught, "half, alone": alone}
    measured = {
        name: press(
            replace(task, model=network, build=None), [Recipe(name="fp32", role="baseline")],
            folder / name.replace(", ", "-"), fresh=True,
        ).baseline
        for name, network in networks.items()
    }  # fmt: skip
    times = {name: each.latency_ms.median if each.latency_ms else 0.0 for name, each in measured.items()}
    return Halved(
        file_bytes={name: each.artifact.bytes for name, each in measured.items()},
        time_ratio={name: time / times["teacher"] for name, time in times.items()},
        accuracy={name: 100 * each.validation.value for name, each in measured.items()},
    )
