"""Comparing runs networks: neither the one that is given nor the result comes out changed by that."""

import pytest
import torch
from torch import nn

from tinypress.shrink import prune_structured
from tinypress.shrink.distance import distance


class Counts(nn.Module):
    """Counts its calls in a buffer, which it may use."""

    def __init__(self, use: bool) -> None:
        super().__init__()
        self.first, self.last, self.use = nn.Linear(5, 8), nn.Linear(8, 3), use
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls.add_(1)
        y = self.last(self.first(x).relu())
        return y * self.calls if self.use else y


class Renormed(nn.Module):
    """An embedding that torch scales down where it is longer than ``max_norm``."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.first, self.last = nn.Embedding(7, 8, max_norm=0.1), nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(self.first(self.words(x)).relu())


class Always(nn.Module):
    """Batch norm of the batch, also in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, x):
        n = self.norm
        y = nn.functional.batch_norm(
            self.first(x), n.running_mean, n.running_var, n.weight, n.bias, True, 0.1
        )
        return self.last(y)


CASES = {
    "a buffer": (Counts(False), torch.randn(4, 5)),
    "a buffer, a flat example": (Counts(False), torch.ones(4, 5)),
    "a buffer that is used": (Counts(True), torch.ones(4, 5)),
    "a parameter": (Renormed(), torch.randint(0, 7, (3, 4))),
    "moments": (Always(), torch.randn(4, 5)),
}


@pytest.mark.parametrize("compare", [True, False])
@pytest.mark.parametrize(("model", "x"), CASES.values(), ids=CASES)
def test_nothing_is_written_into_networks_that_are_compared(model, x, compare):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    done = prune_structured(model, (x,), ratio=0.5, compare=compare)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert done.model.first.out_features in (3, 4)
    assert not [note for note in done.notes if note.code == "TP302"]
    for name, tensor in done.model.state_dict().items():
        if tensor.shape == before[name].shape:
            assert torch.equal(tensor, before[name]), name
    if isinstance(model, Always):
        assert torch.equal(done.model.norm.running_mean, torch.zeros(4))


class Masked(nn.Module):
    """A class that never is: its logit is minus infinity."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.last(self.first(x).relu()).masked_fill(torch.tensor([True, False, False]), float("-inf"))


def test_infinite_outputs_are_compared_too():
    done = prune_structured(Masked(), (torch.randn(4, 5),), ratio=0.5)
    assert done.model.first.out_features == 4
    assert not [note for note in done.notes if note.code == "TP302"]


INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("got", "due", "off"),
    [
        ([1.0, 2.0], [1.0, 4.0], 0.5),
        ([-INF, 2.0], [-INF, 4.0], 0.5),
        ([-INF, INF], [-INF, INF], 0.0),
        ([INF, 2.0], [-INF, 2.0], INF),
        ([1.0, 2.0], [INF, 2.0], INF),
        ([INF, 2.0], [1.0, 2.0], INF),
        ([NAN, 2.0], [1.0, 2.0], INF),
    ],
)
def test_the_distance_of_infinite_numbers(got, due, off):
    class Says(nn.Module):
        def forward(self, x):
            return torch.tensor([got])

    assert distance(Says(), (torch.zeros(1, 2),), [torch.tensor([due])]) == off
