"""Networks made to break structured pruning: each gives a finding or an error, never a wrong network."""

import pytest
import torch
from torch import Tensor, nn

from tinypress.errors import InputError, ModelError
from tinypress.shrink import Budget, prune_structured

CLASSES = 3


class Nasty(nn.Module):
    """Two layers and a head; ``between`` does something in the middle."""

    def __init__(self, between, width: int = 8) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(6, width), nn.Linear(width, 8), nn.Linear(8, CLASSES)
        self.between, self.extra = between, nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.b(self.between(self, torch.relu(self.a(x))))))


def example() -> tuple[Tensor, ...]:
    return (torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),)


def nasty(between) -> nn.Module:
    torch.manual_seed(0)
    return Nasty(between).double().eval()


def literal(model: Nasty, x: Tensor) -> Tensor:
    return x.view(-1, 8)


def sorted_units(model: Nasty, x: Tensor) -> Tensor:
    return x.sort(dim=1).values


def spectrum(model: Nasty, x: Tensor) -> Tensor:
    return torch.fft.rfft(x, dim=1).abs().repeat(1, 2)[:, :8]


def softmaxed(model: Nasty, x: Tensor) -> Tensor:
    return x.softmax(1)


def picked(model: Nasty, x: Tensor) -> Tensor:
    return x * x[:, 3:4]


def turned(model: Nasty, x: Tensor) -> Tensor:
    return x.flip(1)


def counted(model: Nasty, x: Tensor) -> Tensor:
    return x * torch.arange(8, dtype=x.dtype)


def summed_up(model: Nasty, x: Tensor) -> Tensor:
    return x.cumsum(1)


def outer(model: Nasty, x: Tensor) -> Tensor:
    return torch.linalg.solve(torch.eye(8, dtype=x.dtype) + model.extra.weight.T @ model.extra.weight, x.T).T


def padded(model: Nasty, x: Tensor) -> Tensor:
    return nn.functional.pad(x[:, 1:], (0, 1))


def most(model: Nasty, x: Tensor) -> Tensor:
    return x * nn.functional.one_hot(x.argmax(1), 8).to(x.dtype)


@pytest.mark.parametrize(
    ("between", "says"),
    [
        (literal, "literal widths"),
        (sorted_units, "aten.sort"),
        (spectrum, "fft_rfft"),
        (softmaxed, "aten.softmax"),
        (picked, "aten.slice"),
        (turned, "aten.flip"),
        (counted, "aten.arange"),
        (summed_up, "aten.cumsum"),
        (outer, "linalg_solve"),
        (padded, "aten.slice"),
        (most, "aten."),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_what_cannot_be_followed_keeps_its_layer_and_is_named(between, says):
    model = nasty(between)
    done = prune_structured(model, example(), ratio=0.5)
    note = next(note for note in done.notes if note.layer == "a")
    assert note.code in ("TP301", "TP302")
    assert note.severity == "warning"
    assert says in note.text
    assert done.model.a.out_features == 8
    assert done.model.b.out_features == 4  # the rest is cut all the same
    assert done.model(*example()).shape == (5, CLASSES)


def in_place(model: Nasty, x: Tensor) -> Tensor:
    x = x.clone()
    x.add_(1).mul_(2)
    return x.relu_()


def same_tensor_twice(model: Nasty, x: Tensor) -> Tensor:
    return x + x.flatten().view_as(x)


def checked(model: Nasty, x: Tensor) -> Tensor:
    if x.shape[1] not in (8, 4):
        raise ValueError("made for widths of 8 and 4")
    return x


@pytest.mark.parametrize("between", [in_place, checked], ids=lambda each: each.__name__)
def test_what_only_looks_nasty_is_cut(between):
    done = prune_structured(nasty(between), example(), ratio=0.5)
    assert done.model.a.out_features == 4
    assert not [note for note in done.notes if note.severity == "warning"]


def depends_on_values(model: Nasty, x: Tensor) -> Tensor:
    return x * 2 if x.sum() > 0 else x


def of_some_length(model: Nasty, x: Tensor) -> Tensor:
    return x[x[:, 0] > 0].sum(0, keepdim=True) + x


@pytest.mark.parametrize("between", [depends_on_values], ids=lambda each: each.__name__)
def test_what_cannot_be_traced_is_an_error_with_the_place(between):
    with pytest.raises(ModelError, match=r"cannot trace the network at test_nasty\.py"):
        prune_structured(nasty(between), example(), ratio=0.5)


def test_a_shape_that_depends_on_the_data_is_an_error_that_names_the_operation():
    with pytest.raises(ModelError, match=r"aten\.\w+.* depends on the values"):
        prune_structured(nasty(of_some_length), example(), ratio=0.5)


class Unruly(nn.Module):
    """A number that the forward pass reads and that is no width, though it is equal to one."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.times = 8, 8
        self.a, self.head = nn.Linear(6, 8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.a(x)).reshape(len(x), self.width) / self.times)


def test_a_number_that_is_no_width_stays_although_it_equals_one():
    torch.manual_seed(0)
    done = prune_structured(Unruly().double().eval(), example(), ratio=0.5)
    assert (done.model.width, done.model.times, done.model.a.out_features) == (4, 8, 4)
    assert {(c.layer, c.what, c.was, c.now) for c in done.changes} >= {("", "width", 8, 4)}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "a ratio or a budget"),
        ({"ratio": 0.5, "budget": Budget(macs=0.5)}, "a ratio or a budget"),
        ({"ratio": 1.2}, "0 <= ratio < 1"),
        ({"ratio": 50}, "0 <= ratio < 1"),
        ({"ratio": float("nan")}, "0 <= ratio < 1"),
        ({"ratio": 0.5, "importance": "taylr"}, "Did you mean 'taylor'"),
        ({"ratio": 0.5, "importance": "taylor"}, "needs the loss"),
        ({"ratio": 0.5, "importance": "wanda"}, "needs calibration"),
        (
            {"ratio": 0.5, "importance": "activation", "calibration": (torch.zeros(0, 6),)},
            "needs calibration",
        ),
        ({"ratio": 0.5, "keep": ["hed"]}, "Did you mean 'head'"),
        ({"ratio": 0.5, "multiple": 0}, "multiple is 0"),
        ({"ratio": 0.5, "steps": 1.5}, "steps is 1.5"),
        ({"ratio": 0.5, "scope": "everything"}, "everything"),
        ({"budget": Budget()}, "names 0 costs"),
        ({"budget": Budget(macs=0.5, bytes=100)}, "names 2 costs"),
        ({"budget": Budget(parameters=-1)}, "above 0"),
        ({"budget": Budget(macs=1.0)}, "macs is 1.0"),
        ({"budget": Budget(bytes=1200.5)}, "bytes is 1200.5"),
        ({"budget": Budget(latency_ms=1.0)}, "measure"),
        ({"budget": Budget(parameters=5)}, "cannot fall to 5"),
        ({"ratio": 0.5, "keep": ["a", "b"]}, "nothing can leave"),
        ({"ratio": 0.5, "losses": [lambda model: torch.tensor(float("nan"))], "importance": "taylor"}, "nan"),
    ],
)
def test_bad_settings_are_refused_with_a_remedy(settings, says):
    model = nasty(lambda model, x: x)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError) as refused:
        prune_structured(model, example(), **settings)
    assert says in str(refused.value)
    assert str(refused.value).startswith("prune_structured(Nasty")
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_weights_that_are_nan_are_refused():
    model = nasty(lambda model, x: x)
    with torch.no_grad():
        model.a.weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"a\.weight"):
        prune_structured(model, example(), ratio=0.5)


def test_numbers_that_are_nan_where_no_score_reads_them_are_refused():
    torch.manual_seed(0)
    model = (
        nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, CLASSES)).double().eval()
    )
    model[1].running_mean[0] = float("nan")
    with pytest.raises(ModelError, match=r"1\.running_mean"):
        prune_structured(model, example(), ratio=0.5)


@pytest.mark.parametrize("layer", [nn.Embedding(5, 8), nn.Linear(6, 8)], ids=["too high", "of another type"])
def test_an_example_that_the_network_does_not_run_on_is_refused(layer):
    model = nn.Sequential(layer, nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, CLASSES)).eval()
    with pytest.raises(ModelError, match="does not run on example_inputs"):
        prune_structured(model, (torch.full((2, 6), 7),), ratio=0.5)
