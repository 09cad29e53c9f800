"""The networks that are compared with the integer reference: small, and trained on real data for a few steps.

x is [B, 1, 28, 28] pixels of digits, or [B, 6, 128] motion of a wrist; the answer is logits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from tinypress.task import Split
from tinypress.tasks import digits, watch


class Perceptron(nn.Module):
    """The second activation has an integer kernel of its own, the first is part of the product before it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(784, 48), nn.Linear(48, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x.flatten(1)))
        logits: Tensor = self.head(nn.functional.leaky_relu(self.second(x), 0.1))
        return logits


class Residual(nn.Module):
    """Dense, depthwise, grouped and pointwise convolutions, a residual sum, a gate, a concatenation, three poolings."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16)
        self.depthwise, self.depthwise_norm = nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16)
        self.pointwise, self.pointwise_norm = nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16)
        self.squeeze, self.excite = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.grouped, self.grouped_norm = nn.Conv2d(16, 32, 3, padding=1, groups=4), nn.BatchNorm2d(32)
        self.average, self.maximum = nn.AvgPool2d(3, 2, padding=1), nn.MaxPool2d(3, 2, padding=1)
        self.everywhere = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem_norm(self.stem(x)))
        inner = nn.functional.relu6(self.depthwise_norm(self.depthwise(x)))
        inner = self.pointwise_norm(self.pointwise(inner))
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(self.everywhere(inner)))))
        x = torch.relu(self.grouped_norm(self.grouped(x + inner * gate)))
        x = torch.cat([self.average(x), self.maximum(x)], 1)
        logits: Tensor = self.head(self.everywhere(x).flatten(1))
        return logits


class Attentive(nn.Module):
    """A transformer over the rows of the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(28, 32)
        self.places = nn.Parameter(0.1 * torch.randn(28, 32))
        self.block = nn.TransformerEncoderLayer(32, 4, 64, 0.0, "gelu", batch_first=True)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.block(self.embed(x.squeeze(1)) + self.places).mean(1))
        return logits


class Recurrent(nn.Module):
    """An LSTM over the rows of the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(28, 32, batch_first=True)
        self.middle, self.head = nn.Linear(32, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        every, _ = self.lstm(x.squeeze(1))
        logits: Tensor = self.head(torch.relu(self.middle(every[:, -1])))
        return logits


@dataclass(frozen=True)
class Row:
    """A network, where its data comes from, its learning rate, and whether all its layers are in integers."""

    build: Callable[[], nn.Module]
    data: Callable[[], tuple[Split, Split, Split]]
    rate: float = 3e-3
    integers_throughout: bool = True


def narrow_watch() -> nn.Module:
    return watch.WatchNet(width=16)


ROWS = {
    "mlp": Row(Perceptron, digits._splits),
    "cnn": Row(Residual, digits._splits),
    "watch": Row(narrow_watch, watch.splits),
    "transformer": Row(Attentive, digits._splits, integers_throughout=False),
    "lstm": Row(Recurrent, digits._splits, 1e-2, integers_throughout=False),
}


@cache
def data_of(name: str) -> tuple[Split, Split, Split]:
    return ROWS[name].data()


@cache
def trained_row(name: str, epochs: int) -> nn.Module:
    """The network of a row after ``epochs`` epochs of Adam on the training split."""
    row, (train, _, _) = ROWS[name], data_of(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = row.build().train()
        optimizer = torch.optim.Adam(model.parameters(), row.rate)
        for _ in range(epochs):
            order = torch.randperm(len(train))
            for start in range(0, len(order), 64):
                batch = train.take(order[start : start + 64])
                loss = nn.functional.cross_entropy(model(*batch.inputs), batch.targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return model.eval()
