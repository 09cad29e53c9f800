"""Neurons may lie along positions: a linear layer writes them into the last dimension. What windows or statistics run
over keeps them, whether outputs are compared or not."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tinypress.errors import ModelError
from tinypress.shrink import prune_structured

X = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))


class Between(nn.Module):
    """[B, 6, 5] -> [B, 6, 8], whatever ``what`` makes of that, and a layer that reads ``width`` of it."""

    def __init__(self, what, width: int, layer: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.what, self.layer, self.last = nn.Linear(5, 8), what, layer, nn.Linear(width, 3)

    def forward(self, x):
        return self.last(self.what(self, self.first(x)))


WINDOWS = {
    "adaptive mean": (lambda m, h: F.adaptive_avg_pool1d(h, 4), 4),
    "adaptive maximum": (lambda m, h: F.adaptive_max_pool1d(h, 4), 4),
    "nearest": (lambda m, h: F.interpolate(h, size=4), 4),
    "linear": (lambda m, h: F.interpolate(h, size=4, mode="linear"), 4),
    "a convolution": (lambda m, h: m.layer(h), 1, nn.Conv1d(6, 6, 3, stride=8, padding=1)),
    "a transposed convolution": (lambda m, h: m.layer(h)[..., :4], 4, nn.ConvTranspose1d(6, 6, 3)),
}
STATISTICS = {
    "instance norm": (lambda m, h: m.layer(h), 8, nn.InstanceNorm1d(6)),
    "batch norm without moments": (lambda m, h: m.layer(h), 8, nn.BatchNorm1d(6, track_running_stats=False)),
}


@pytest.mark.parametrize("compare", [True, False])
@pytest.mark.parametrize("case", [*WINDOWS.values(), *STATISTICS.values()], ids=[*WINDOWS, *STATISTICS])
def test_what_runs_over_positions_keeps_neurons_that_lie_there(case, compare):
    with pytest.raises(
        ModelError, match=r"first \(Linear\) keeps all its neurons: they cannot be followed through"
    ):
        prune_structured(Between(*case), (X,), ratio=0.5, compare=compare)


def test_a_group_norm_runs_over_positions_too():
    torch.manual_seed(0)
    model = Between(lambda m, h: m.layer(h), 8, nn.GroupNorm(2, 6)).double()
    with pytest.raises(ModelError, match=r"cannot be followed through aten\.group_norm"):
        prune_structured(model, (X.double(),), ratio=0.5, exact=True)
    done = prune_structured(model, (X.double(),), ratio=0.5)
    assert done.model.first.out_features == 4
    assert [note.layer for note in done.notes if note.code == "TP304"] == ["first"]


class Rolled(nn.Module):
    """A shift that is as large as a width."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.width, self.shift = nn.Linear(5, 8), nn.Linear(8, 3), 8, 8

    def forward(self, x):
        return self.last(torch.roll(self.first(x).view(len(x), -1, self.width), self.shift, 1))


@pytest.mark.parametrize("compare", [True, False])
def test_a_number_in_a_list_that_is_no_size_stays(compare):
    done = prune_structured(Rolled(), (torch.randn(2, 16, 5),), ratio=0.5, compare=compare)
    assert (done.model.width, done.model.shift) == (4, 8)
    assert not [note for note in done.notes if note.code == "TP302"]
