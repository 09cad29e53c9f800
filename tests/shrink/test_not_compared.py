"""``compare=False``: nothing runs with values, the same network comes out, and what cannot run is still given back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from zoo import build

from tinypress.errors import ModelError
from tinypress.graph import forward_eval, tensors_of
from tinypress.shrink import prune_structured
from tinypress.shrink.cutting import Cut
from tinypress.tasks.digits import DigitsNet


class Products(TorchDispatchMode):
    """Counts products of tensors with values."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("linear", "addmm", "mm", "convolution", "conv2d") and not args[0].is_meta:
            self.count += 1
        return func(*args, **(kwargs or {}))


def states(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.state_dict())


@pytest.mark.parametrize("name", ["MobileNetV2", "ViT", "DistilBERT", "LSTM", "ShuffleNet"])
def test_it_is_the_network_that_a_comparison_would_have_found_right(name):
    model, given = build(name)
    compared = prune_structured(model, given, ratio=0.5)
    quick = prune_structured(model, given, ratio=0.5, compare=False)
    due, now = states(compared.model), states(quick.model)
    assert due.keys() == now.keys()
    assert all(torch.equal(due[key], now[key]) for key in due)
    assert quick.changes == compared.changes
    assert [each.code for each in quick.notes if each.code == "TP308"] == ["TP308"]
    assert not any(each.code == "TP308" for each in compared.notes)
    one, other = (tensors_of(forward_eval(each.model, given)) for each in (compared, quick))
    assert all(torch.equal(x, y) for x, y in zip(one, other, strict=True))


def test_no_layer_is_run_with_values():
    model, x = DigitsNet().eval(), torch.randn(2, 1, 28, 28)
    with Products() as seen:
        prune_structured(model, (x,), ratio=0.5, compare=False)
    assert seen.count == 0
    with Products() as seen:
        prune_structured(model, (x,), ratio=0.5)
    assert seen.count > 0


class Literal(nn.Module):
    """Counts on the width of ``up``: a literal size in forward()."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.up(torch.relu(self.first(x))))
        return self.down(x.reshape(len(x), 12))


def test_what_counts_on_a_width_is_given_back():
    after = prune_structured(Literal(), (torch.randn(2, 6),), ratio=0.5, compare=False)
    assert after.model.up.out_features == 12
    assert after.model.first.out_features == 4
    assert after.model(torch.randn(5, 6)).shape == (5, 3)


def test_a_size_that_is_not_the_one_due_is_noticed(monkeypatch):
    """A cut that takes fewer units than it was told runs, and is not what was asked for."""
    from tinypress.shrink import surgery

    real = surgery.cut_out

    def careless(model, cuts):
        return real(model, [Cut(cut.group, cut.units[1:]) for cut in cuts])

    monkeypatch.setattr(surgery, "cut_out", careless)
    after = prune_structured(DigitsNet(), (torch.randn(2, 1, 28, 28),), ratio=0.5, compare=False)
    assert {each.code for each in after.notes} >= {"TP302"}
    assert any("weight is (" in each.text and ", not (" in each.text for each in after.notes)


class Wide(nn.Module):
    """Two layers, and something that depends on how wide the first is."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.up, self.down, self.what = nn.Linear(6, 16), nn.Linear(16, 3), what

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        width = x.shape[1]
        if self.what == "branch":
            x = torch.relu(x) if width >= 16 else torch.sigmoid(x)
        elif self.what == "slice":
            return self.down(torch.relu(x)) + x[:, :8].sum(1, keepdim=True)
        elif self.what == "number":
            x = torch.relu(x) / width
        elif self.what == "setting":
            x = nn.functional.leaky_relu(x, 0.1 if width == 16 else 0.9)
        return self.down(x)


@pytest.mark.parametrize("what", ["branch", "slice", "number", "setting"])
@pytest.mark.parametrize("compare", [True, False])
def test_what_does_something_else_once_it_is_thinner_is_given_back(what, compare):
    torch.manual_seed(0)
    after = prune_structured(Wide(what).eval(), (torch.randn(4, 6),), ratio=0.5, compare=compare)
    assert after.model.up.out_features == 16
    assert [each.code for each in after.notes if each.code == "TP302"] == ["TP302"]


class Heads(nn.Module):
    """Attention that keeps its number of heads to itself; called with two tensors of different first sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(a, b) for a, b in [(8, 16)] * 3 + [(16, 8)])
        self.h = 4

    def forward(self, x: Tensor, more: Tensor) -> Tensor:
        x = x + more
        batch, length, _ = x.shape
        parts = [f(x).view(batch, length, self.h, -1).transpose(1, 2) for f in (self.q, self.k, self.v)]
        y = nn.functional.scaled_dot_product_attention(*parts)
        return self.o(y.transpose(1, 2).reshape(batch, length, -1))


def test_where_nothing_can_be_recorded_values_are_compared_after_all():
    torch.manual_seed(0)
    inputs = torch.randn(2, 5, 8), torch.randn(5, 8)
    compared, quick = (
        prune_structured(Heads().eval(), inputs, ratio=0.5, compare=compare) for compare in (True, False)
    )
    assert (compared.model.h, quick.model.h) == (2, 2)
    assert not any(each.code == "TP308" for each in quick.notes)


def test_values_that_no_network_can_return_right_are_refused_without_a_comparison_too():
    model = Literal()
    with torch.no_grad():
        model.down.bias[0] = float("nan")
    with pytest.raises(ModelError, match="NaN"):
        prune_structured(model, (torch.randn(2, 6),), ratio=0.5, compare=False)


def test_a_network_that_fails_on_its_example_is_refused():
    with pytest.raises(ModelError, match="does not run"):
        prune_structured(Literal(), (torch.randn(2, 5),), ratio=0.5, compare=False)
