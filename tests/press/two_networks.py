"""A CNN with batch norm and residual blocks, and a transformer, both trained for a moment: every step fits them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from press.small import samples
from tinypress.task import Task, Training
from tinypress.tasks.watch_transformer import Layer


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv1d(8, 12, 3, padding=1)
        self.norm = nn.BatchNorm1d(12)
        self.two = nn.Conv1d(12, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.two(torch.relu(self.norm(self.one(x))))


class Cnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(2, 8, 3, padding=1)
        self.norm = nn.BatchNorm1d(8)
        self.blocks = nn.ModuleList([Block() for _ in range(2)])
        self.hidden = nn.Linear(64, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.head(torch.relu(self.hidden(x.flatten(1))))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(2, 16)
        self.places = nn.Parameter(0.1 * torch.randn(1, 8, 16))
        self.layers = nn.ModuleList([Layer(16, 2) for _ in range(3)])
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x.transpose(1, 2)) + self.places
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x).mean(1))


@cache
def task_of(build: Callable[[], nn.Module]) -> Task:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = build().train()
        train = samples(300, 1)
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        for _ in range(60):
            loss = nn.functional.cross_entropy(model(*train.inputs), train.targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return Task(
        name=build.__name__.lower(),
        model=model.eval(),
        build=build,
        example_inputs=(samples(2, 4).inputs[0],),
        train=train,
        validation=samples(100, 2),
        test=samples(200, 3),
        loss=nn.functional.cross_entropy,
        metric="accuracy",
        training=Training(max_epochs=2, recovery_epochs=1),
    )
