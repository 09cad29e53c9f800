"""A number of the user's own that equals a width: it follows the width only where it is one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from tinypress.errors import InputError
from tinypress.shrink import prune_structured


class Scaled(nn.Module):
    """Divides by a constant that has the size of its hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(8, 16, bias=False)
        self.out = nn.Linear(16, 4, bias=False)
        self.temperature = 16

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.into(x).relu()) / self.temperature


class Shifted(Scaled):
    """Returns whole numbers, shifted by that constant."""

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.into(x).relu()).argmax(1) + self.temperature


class Faint(nn.Module):
    """The constant scales a branch that is small beside what it is added to."""

    def __init__(self) -> None:
        super().__init__()
        self.grow, self.back, self.head = nn.Linear(8, 32), nn.Linear(32, 8), nn.Linear(8, 3)
        self.temperature = 32

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x + 0.01 * self.back(self.grow(x).relu()) / self.temperature)


class Heads(nn.Module):
    """As many heads as each is wide: both numbers are widths, and only one of them becomes smaller."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))
        self.back = nn.Linear(16, 16)
        self.heads, self.width = 4, 4

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).view(*x.shape[:2], self.heads, self.width).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = (q @ k.transpose(-1, -2) / self.width**0.5).softmax(-1) @ v
        return x + self.back(mixed.transpose(1, 2).flatten(2))


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", [Scaled, Shifted, Faint])
@pytest.mark.parametrize("example", [torch.zeros(2, 8), drawn(3, 8)], ids=["zeros", "random"])
def test_a_constant_that_is_no_width_stays(kind: type[nn.Module], example: Tensor) -> None:
    torch.manual_seed(0)
    model = kind()
    done = prune_structured(model, (example,), ratio=0.5).model
    assert done.temperature == model.temperature
    assert (done.out if hasattr(done, "out") else done.back).in_features == model.temperature // 2


def test_of_two_equal_numbers_the_right_one_follows() -> None:
    torch.manual_seed(0)
    model = Heads()
    done = prune_structured(model, (drawn(4, 5, 16),), ratio=0.5).model
    assert (done.heads, done.width) == (2, 4)
    assert done.query.out_features == 8


@pytest.mark.parametrize(
    "example",
    [(), (torch.zeros(0, 8),), (torch.zeros(2, 8, device="meta"),)],
    ids=["nothing", "no samples", "no values"],
)
def test_an_example_without_values_is_refused(example: tuple[Tensor, ...]) -> None:
    with pytest.raises(InputError):
        prune_structured(Scaled(), example, ratio=0.5)


class Counting(nn.Module):
    """Writes into its buffer and into what it is given."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.into, self.out = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return self.out(self.into(x.mul_(2)).relu())


def test_neither_the_network_nor_the_example_is_written_to() -> None:
    torch.manual_seed(0)
    model, example = Counting(), drawn(3, 8)
    before, given = copy.deepcopy(model.state_dict()), example.clone()
    done = prune_structured(model, (example,), ratio=0.5)
    assert done.model.into.out_features == 8
    assert torch.equal(example, given)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
