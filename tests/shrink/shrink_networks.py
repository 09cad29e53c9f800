"""Small networks for the tests. ``gates`` says what consumers read: a mask per named place, set by a test to
read removed neurons as zero. With no gates the traced graph holds no trace of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gates: dict[str, Tensor] = {}

    def gate(self, place: str, x: Tensor) -> Tensor:
        mask = self.gates.get(place)
        return x if mask is None else x * mask.reshape(1, -1, *[1] * (x.dim() - 2))


class Mlp(Gated):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(6, 10), nn.Linear(10, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.gate("a", torch.tanh(self.a(x)))
        x = self.gate("b", torch.sigmoid(self.b(x)))
        return self.head(x)


class Residual(Gated):
    """[B, 3, 8, 8] -> [B, 4]; ``stem`` and ``second`` are added to one another."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm0 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.first, self.norm1 = nn.Conv2d(8, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.second, self.norm2 = nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.act, self.pool, self.drop = nn.SiLU(), nn.MaxPool2d(2), nn.Dropout(0.5)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.gate("trunk", self.act(self.norm0(self.stem(x))))
        y = self.gate("first", self.act(self.norm1(self.first(x))))
        x = x + self.gate("trunk", self.norm2(self.second(y)))
        x = self.gate("trunk", self.act(x))
        x = self.pool(x)
        return self.head(self.drop(x.mean((2, 3))))


class Sequence(Gated):
    """[B, 2, 12] -> [B, 3], with a flatten between convolution and linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv1d(2, 8, 3), nn.BatchNorm1d(8)
        self.b = nn.Conv1d(8, 6, 3, stride=2)
        self.flat, self.hidden, self.head = nn.Flatten(), nn.Linear(24, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.gate("a", torch.relu(self.norm(self.a(x))))
        x = self.gate("b", torch.nn.functional.gelu(self.b(x)))
        x = self.flat(x)
        return self.head(self.gate("hidden", torch.relu(self.hidden(x))))


class Depthwise(Gated):
    """[B, 3, 8, 8] -> [B, 4]; the depthwise layer doubles its channels."""

    def __init__(self, multiplier: int = 2) -> None:
        super().__init__()
        wide = 6 * multiplier
        self.a, self.norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
        self.deep, self.norm_deep = nn.Conv2d(6, wide, 3, groups=6), nn.BatchNorm2d(wide)
        self.point, self.head = nn.Conv2d(wide, 7, 1), nn.Linear(7, 4)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.a(x)))
        x = self.gate("deep", torch.nn.functional.hardswish(self.norm_deep(self.deep(x))))
        x = self.gate("point", torch.relu(self.point(x)))
        return self.head(self.pool(x).flatten(1))


class Joined(Gated):
    """[B, 3, 8, 8] -> [B, 4]; two branches and the input side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(3, 6, 1)
        self.norm = nn.BatchNorm2d(14)
        self.mix, self.head = nn.Conv2d(14, 7, 3), nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.left(x), x, self.right(x)], dim=1)
        x = self.gate("joined", torch.relu(self.norm(x)))
        x = self.gate("mix", torch.relu(self.mix(x)))
        return self.head(x.amax((2, 3)))


def settled(model: Gated, *shape: int, seed: int = 0) -> tuple[Gated, Tensor]:
    """The network in float64 and eval mode with every tensor random (batch norms too), and an input."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double().eval()
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point():
                values = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
                tensor.copy_(values.abs() + 0.5 if name.endswith("running_var") else values * 0.5)
    return model, torch.randn(*shape, generator=generator, dtype=torch.float64)


def smallest(weight: Tensor, count: int) -> set[int]:
    """The rows of smallest Euclidean norm, found the plain way."""
    norms = [sum(v**2 for v in row.flatten().tolist()) for row in weight]
    return set(sorted(range(len(norms)), key=norms.__getitem__)[:count])


def mask(width: int, gone: set[int]) -> Tensor:
    """1 where a neuron stays and 0 where it is gone."""
    return torch.tensor([0.0 if i in gone else 1.0 for i in range(width)], dtype=torch.float64)
