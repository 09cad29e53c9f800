"""A task that trains in a second: which of three directions a point lies in, by a network with residual blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tinypress.task import Split, Task, Training


class Block(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(x)))


class Net(nn.Module):
    """[B, 6] -> [B, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 16)
        self.blocks = nn.ModuleList([Block(16, 24) for _ in range(3)])
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def split(count: int, seed: int) -> Split:
    x = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))
    return Split((x,), (x[:, :3] + 0.5 * x[:, 3:]).argmax(1))


def task(*, trains: bool = True) -> Task:
    torch.manual_seed(0)
    return Task(
        name="directions",
        model=Net().eval(),
        example_inputs=(torch.randn(2, 6),),
        train=split(128, 1) if trains else None,
        validation=split(200, 2),
        test=split(60, 3),
        metric="accuracy",
        loss=nn.functional.cross_entropy if trains else None,
        training=Training(max_epochs=2, recovery_epochs=1, batch_size=64, recovery_learning_rate=1e-2),
    )
