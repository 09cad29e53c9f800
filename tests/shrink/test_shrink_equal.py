"""A cut network computes what the whole one computes when consumers read its removed neurons as zero."""

import copy

import pytest
import torch
from shrink_networks import Depthwise, Gated, Joined, Mlp, Residual, Sequence, mask, settled, smallest

from tinypress.layers import rebuild, structure
from tinypress.shrink import prune_layer_neurons, shrink_model


def check(original: Gated, cut, x, gates) -> None:
    masked = copy.deepcopy(original)
    masked.gates = gates
    torch.testing.assert_close(cut.model(x), masked(x), rtol=1e-9, atol=1e-12)
    assert not torch.allclose(cut.model(x), original(x)), "nothing that matters was removed"


@pytest.mark.parametrize(("layer", "width"), [("a", 10), ("b", 8)])
def test_mlp(layer, width):
    model, x = settled(Mlp(), 5, 6)
    gone = smallest(getattr(model, layer).weight, width // 2)
    check(model, prune_layer_neurons(model, layer, 0.5, (x,)), x, {layer: mask(width, gone)})


def test_inner_convolution_of_a_residual_block():
    model, x = settled(Residual(), 3, 3, 8, 8)
    gone = smallest(model.first.weight, 2)
    cut = prune_layer_neurons(model, "first", 0.3, (x,))
    check(model, cut, x, {"first": mask(6, gone)})
    assert cut.model.first.out_channels == cut.model.second.in_channels == cut.model.norm1.num_features == 4


@pytest.mark.parametrize("layer", ["stem", "second"])
def test_both_sides_of_an_addition_lose_the_same_channels(layer):
    model, x = settled(Residual(), 3, 3, 8, 8)
    with torch.no_grad():  # large weights must not outvote the other layer
        model.stem.weight.mul_(20)
    norms = [w.flatten(1).norm(dim=1) for w in (model.stem.weight, model.second.weight)]
    summed = sum(n / n.mean() for n in norms)
    gone = set(summed.argsort()[:4].tolist())
    cut = prune_layer_neurons(model, layer, 0.5, (x,))
    check(model, cut, x, {"trunk": mask(8, gone)})
    assert cut.model.stem.out_channels == cut.model.second.out_channels == cut.model.head.in_features == 4


def test_flatten_gives_each_channel_its_positions():
    model, x = settled(Sequence(), 4, 2, 12)
    gone = smallest(model.b.weight, 3)
    cut = prune_layer_neurons(model, "b", 0.5, (x,))
    check(model, cut, x, {"b": mask(6, gone)})
    assert cut.model.hidden.weight.shape == (5, 12)


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_convolution_loses_groups(multiplier):
    model, x = settled(Depthwise(multiplier), 3, 3, 8, 8)
    gone = smallest(model.a.weight, 3)
    cut = prune_layer_neurons(model, "a", 0.5, (x,))
    check(model, cut, x, {"deep": mask(6, gone).repeat_interleave(multiplier)})
    deep = cut.model.deep
    assert (deep.groups, deep.in_channels, deep.out_channels) == (3, 3, 3 * multiplier)
    assert cut.model.point.in_channels == 3 * multiplier


def test_naming_the_depthwise_layer_cuts_the_channels_that_it_reads():
    model, x = settled(Depthwise(), 2, 3, 8, 8)
    one, other = (prune_layer_neurons(model, name, 0.5, (x,)).model for name in ("a", "deep"))
    assert torch.equal(one(x), other(x))
    assert other.a.out_channels == 3


@pytest.mark.parametrize(("layer", "offset", "width"), [("left", 0, 5), ("right", 8, 6)])
def test_branches_laid_side_by_side(layer, offset, width):
    model, x = settled(Joined(), 3, 3, 8, 8)
    gone = smallest(getattr(model, layer).weight, 2)
    cut = prune_layer_neurons(model, layer, 0.4, (x,))
    check(model, cut, x, {"joined": mask(14, {offset + i for i in gone})})
    assert cut.model.norm.num_features == cut.model.mix.in_channels == 12


@pytest.mark.parametrize(
    ("build", "shape", "head"),
    [
        (Mlp, (3, 6), 3),
        (Residual, (3, 3, 8, 8), 4),
        (Sequence, (3, 2, 12), 3),
        (Depthwise, (3, 3, 8, 8), 4),
        (Joined, (3, 3, 8, 8), 4),
    ],
)
def test_a_whole_network_shrinks_keeps_its_classes_trains_and_reloads(build, shape, head):
    model, x = settled(build(), *shape)
    before = copy.deepcopy(model.state_dict())
    cut = shrink_model(model, 0.5, (x,))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    count = sum(p.numel() for p in model.parameters())
    assert sum(p.numel() for p in cut.model.parameters()) < 0.6 * count
    assert cut.model.head.out_features == head
    assert cut.model(x).shape == model(x).shape
    assert all(p.dtype == torch.float64 and p.requires_grad for p in cut.model.parameters())

    again = rebuild(model, structure(cut.model))
    again.load_state_dict(cut.model.state_dict())
    assert torch.equal(again.eval()(x), cut.model(x))

    twice = shrink_model(cut.model, 0.5, (x,))
    assert twice.model(x).shape == model(x).shape
    assert sum(p.numel() for p in twice.model.parameters()) < sum(p.numel() for p in cut.model.parameters())

    trained = cut.model.train()
    optimizer = torch.optim.SGD(trained.parameters(), 0.01)
    trained(x).square().mean().backward()
    optimizer.step()
    assert not torch.equal(again(x), trained.eval()(x))


def test_all_groups_at_once_equal_the_masks_of_each():
    model, x = settled(Sequence(), 4, 2, 12)
    gates = {
        "a": mask(8, smallest(model.a.weight, 4)),
        "b": mask(6, smallest(model.b.weight, 3)),
        "hidden": mask(5, smallest(model.hidden.weight, 2)),
    }
    check(model, shrink_model(model, 0.5, (x,)), x, gates)


def test_two_groups_that_meet_in_one_layer():
    model, x = settled(Joined(), 2, 3, 8, 8)
    left, right = smallest(model.left.weight, 2), smallest(model.right.weight, 3)
    gates = {
        "joined": mask(14, left | {8 + i for i in right}),
        "mix": mask(7, smallest(model.mix.weight, 4)),
    }
    check(model, shrink_model(model, 0.5, (x,)), x, gates)
