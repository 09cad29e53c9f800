"""A factorised layer computes the best product of its size, is smaller, and opens again from its archive."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from zoo_own import LeNet, UNet

from tinypress.archive import read_archive, write_archive
from tinypress.errors import InputError, ModelError
from tinypress.shrink import factorize_model, prune_structured


def settled(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.double().eval()


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def product(pair: nn.Sequential) -> torch.Tensor:
    first, second = (layer.weight.detach().flatten(1) for layer in pair)
    return second @ first


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(0, 1000))
def test_a_weight_of_low_rank_is_kept_exactly(rank, seed):
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 3)).double().eval()
    with torch.no_grad():
        left, right = (torch.randn(shape, generator=generator).double() for shape in ((16, rank), (rank, 12)))
        model[0].weight.copy_(left @ right)
    x = torch.randn(5, 12, generator=generator).double()
    done = factorize_model(model, (x,), energy=1.0, keep=["2"])
    assert done.model[0][0].out_features == rank
    torch.testing.assert_close(done.model(x), model(x), rtol=1e-9, atol=1e-9)
    assert count(done.model) < count(model)


def test_the_product_is_the_nearest_of_its_rank():
    model = settled(nn.Sequential(nn.Conv2d(6, 20, 3), nn.Flatten(), nn.Linear(20, 3)))
    done = factorize_model(model, (torch.randn(2, 6, 3, 3).double(),), energy=0.5, keep=["2"])
    weight = model[0].weight.detach().flatten(1)
    rank = done.model[0][0].out_channels
    lost = torch.linalg.svdvals(weight)[rank:].square().sum()  # Eckart and Young, 1936
    torch.testing.assert_close((weight - product(done.model[0])).square().sum(), lost)
    assert lost <= 0.5 * weight.square().sum()
    assert [(change.layer, change.what, change.was, change.now) for change in done.changes] == [
        ("0", "rank", 20, rank)
    ]


def test_a_separable_convolution_is_the_best_product_of_each_channel():
    model = settled(
        nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
    )
    x = torch.randn(2, 4, 4, 4).double()
    done = factorize_model(model, (x,), separable=True)
    depth, point = done.model[0]
    assert (depth.groups, depth.stride, point.kernel_size) == (4, (2, 2), (1, 1))
    for channel in range(4):
        weights = model[0].weight[:, channel].detach().flatten(1)
        best = torch.linalg.svdvals(weights)[1:].square().sum()
        made = point.weight[:, channel].detach().flatten(1) @ depth.weight[channel].detach().flatten(1)
        torch.testing.assert_close((weights - made).square().sum(), best)
    assert done.model(x).shape == (2, 3)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_a_budget_is_met_from_below(share):
    model = settled(LeNet())
    x = torch.randn(2, 1, 28, 28).double()
    before = copy.deepcopy(model.state_dict())
    done = factorize_model(model, (x,), parameters=share)
    assert 0.9 * share * count(model) < count(done.model) <= share * count(model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("settings_", [{"energy": 0.6}, {"separable": True}, {"parameters": 0.6}])
def test_it_opens_again_trains_and_can_be_pruned(tmp_path, settings_):
    stock = settled(UNet())
    x = torch.randn(2, 3, 32, 32).double()
    done = factorize_model(stock, (x,), **settings_)
    pruned = prune_structured(done.model, (x,), ratio=0.3)
    for name, each in (("factorised", done), ("pruned", pruned)):
        write_archive(tmp_path / f"{name}.archive.safetensors", each)
        again = read_archive(tmp_path / f"{name}.archive.safetensors", stock).model
        assert torch.equal(again(x), each.model.eval()(x))
    pruned.model(x).square().mean().backward()
    assert all(p.grad is not None for p in pruned.model.parameters())


def test_what_would_grow_or_is_shared_stays_and_is_named():
    shared = nn.Linear(8, 8)
    tied = nn.Linear(8, 8)
    tied.weight = shared.weight
    model = settled(nn.Sequential(shared, nn.ReLU(), tied, nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 40)))
    done = factorize_model(model, (torch.randn(2, 8).double(),), energy=0.5)
    texts = {note.layer: note.text for note in done.notes}
    assert "shares its weight" in texts["0"]
    assert "shares its weight" in texts["2"]
    with pytest.raises(ModelError, match="no layer gets smaller"):
        factorize_model(model, (torch.randn(2, 8).double(),), energy=1.0)


@pytest.mark.parametrize(
    ("settings_", "says"),
    [
        ({}, "one of energy, parameters and separable"),
        ({"energy": 0.5, "separable": True}, "one of energy"),
        ({"energy": 1.2}, "at most 1"),
        ({"energy": float("nan")}, "energy is nan"),
        ({"parameters": 0}, "above 0"),
        ({"parameters": 5}, "cannot fall to 5"),
        ({"energy": 0.5, "keep": ["fc9"]}, "Did you mean 'fc"),
    ],
)
def test_bad_settings_are_refused(settings_, says):
    with pytest.raises(InputError) as refused:
        factorize_model(settled(LeNet()), (torch.randn(2, 1, 28, 28).double(),), **settings_)
    assert says in str(refused.value)
