"""A small task and recipes that press it in seconds: enough to run the whole pipeline."""

from __future__ import annotations

import torch
from torch import nn

from tinypress.press.compare import BASELINE
from tinypress.press.recipe import Recipe
from tinypress.press.step import Distill, Magnitude, Quantize, Recover, Shrink, Student
from tinypress.task import Split, Task, Training

RECIPES = (
    BASELINE,
    Recipe(
        name="prune+int8",
        steps=(Magnitude(sparsity=0.5), Recover(epochs=2), Quantize()),
        ship=("onnx", "archive"),
    ),
    Recipe(name="shrink", steps=(Shrink(ratio=0.5), Distill(epochs=2))),
    Recipe(name="small", role="control", control_of="shrink", steps=(Student(ratio=0.5), Recover(epochs=2))),
)


def build() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 8, 3, padding=1),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Flatten(),
        nn.Linear(32, 16),
        nn.ReLU(),
        nn.Linear(16, 3),
    )


def samples(count: int, seed: int, groups: bool = True) -> Split:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 2, 8, generator=generator)
    score = x[:, 0, :4].sum(1) - x[:, 1, 4:].sum(1)
    y = torch.bucketize(score, torch.tensor([-1.0, 1.0]))
    return Split((x,), y, torch.arange(count) // 5 if groups else None)


def small_task(groups: bool = True) -> Task:
    torch.manual_seed(3)
    model = build()
    train = samples(300, 1)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    model.train()
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(*train.inputs), train.targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Task(
        name="small",
        model=model.eval(),
        build=build,
        example_inputs=(torch.randn(2, 2, 8),),
        train=train,
        validation=samples(100, 2, groups),
        test=samples(200, 3, groups),
        loss=nn.functional.cross_entropy,
        metric="accuracy",
        training=Training(max_epochs=3, recovery_epochs=2),
    )
