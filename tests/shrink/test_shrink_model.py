"""The calls themselves: what they refuse, what they keep, and how a shrink of one's own is driven."""

import copy
import dataclasses
import math

import pytest
import torch
from shrink_networks import Mlp, Residual, Sequence, settled
from torch import nn

from tinypress.errors import InputError, ModelError
from tinypress.facts import Compressed
from tinypress.shrink import prune_layer_neurons, shrink_model


@pytest.mark.parametrize("ratio", [1.0, -0.1, 2, math.nan, True, "half", None])
def test_a_ratio_must_be_a_fraction(ratio):
    model, x = settled(Mlp(), 2, 6)
    for call in (
        lambda: prune_layer_neurons(model, "a", ratio, (x,)),
        lambda: shrink_model(model, ratio, (x,)),
    ):
        with pytest.raises(InputError, match=r"0 <= ratio < 1"):
            call()


def test_names_are_checked_and_the_nearest_is_offered():
    model, x = settled(Sequence(), 2, 2, 12)
    with pytest.raises(ModelError, match="Did you mean 'hidden'"):
        prune_layer_neurons(model, "hiden", 0.5, (x,))
    with pytest.raises(ModelError, match=r"'norm' is a BatchNorm1d.*a, b, hidden, head"):
        prune_layer_neurons(model, "norm", 0.5, (x,))
    with pytest.raises(ModelError, match="'flat' is a Flatten"):
        prune_layer_neurons(model, "flat", 0.5, (x,))
    with pytest.raises(InputError, match="Did you mean 'variance'"):
        prune_layer_neurons(model, "a", 0.5, (x,), importance="varience")
    with pytest.raises(InputError, match="calibration"):
        shrink_model(model, 0.5, (x,), importance="activation")
    with pytest.raises(ModelError, match="Did you mean 'head'"):
        shrink_model(model, 0.5, (x,), keep=["hed"])


def test_the_class_head_keeps_its_classes():
    model, x = settled(Residual(), 2, 3, 8, 8)
    with pytest.raises(ModelError, match="the head keeps one neuron for each class"):
        prune_layer_neurons(model, "head", 0.5, (x,))


def test_examples_and_weights_are_checked():
    model, x = settled(Mlp(), 2, 6)
    with pytest.raises(ModelError, match=r"\(2, 5\)"):
        prune_layer_neurons(model, "a", 0.5, (x[:, :5],))
    with torch.no_grad():
        model.b.weight[0, 0] = math.nan
    with pytest.raises(ModelError, match=r"'b\.weight' holds NaN"):
        shrink_model(model, 0.5, (x,))


def test_at_least_one_neuron_stays():
    model, x = settled(Mlp(), 2, 6)
    cut = shrink_model(model, 0.999, (x,)).model
    assert (cut.a.out_features, cut.b.out_features, cut.head.out_features) == (1, 1, 3)
    assert cut(x).shape == (2, 3)
    again = shrink_model(cut, 0.999, (x,))
    assert torch.equal(again.model(x), cut(x))
    assert {n.layer for n in again.notes} == {"a", "b", "head"}


def test_a_ratio_of_zero_changes_nothing_and_less_than_a_neuron_is_said():
    model, x = settled(Mlp(), 2, 6)
    same = prune_layer_neurons(model, "a", 0, (x,))
    assert torch.equal(same.model(x), model(x))
    assert same.model is not model
    assert not same.notes
    tiny = prune_layer_neurons(model, "a", 0.01, (x,))
    assert "less than one" in tiny.notes[0].text
    assert not tiny.changes


def test_changes_tell_every_width_that_is_another_now():
    model, x = settled(Residual(), 2, 3, 8, 8)
    cut = prune_layer_neurons(model, "stem", 0.25, (x,))
    assert {(c.layer, c.what, c.was, c.now) for c in cut.changes} == {
        ("stem", "out_channels", 8, 6),
        ("norm0", "num_features", 8, 6),
        ("first", "in_channels", 8, 6),
        ("second", "out_channels", 8, 6),
        ("norm2", "num_features", 8, 6),
        ("head", "in_features", 8, 6),
    }


def test_training_mode_frozen_parameters_and_the_model_itself_are_left_as_they_were():
    model, x = settled(Residual(), 1, 3, 8, 8)
    model.train()
    model.norm1.eval()
    model.first.weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    cut = shrink_model(model, 0.5, (x,), importance="activation", calibration=(x,)).model
    assert cut.training
    assert cut.stem.training
    assert not cut.norm1.training
    assert not cut.first.weight.requires_grad
    assert cut.second.weight.requires_grad
    assert model.training
    assert not model.norm1.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in cut.parameters())
    shared = {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in cut.parameters()}
    assert not shared


def test_pruned_zeros_survive():
    model, x = settled(Sequence(), 2, 2, 12)
    with torch.no_grad():
        model.hidden.weight[torch.rand_like(model.hidden.weight) < 0.7] = 0
    cut = prune_layer_neurons(model, "a", 0.5, (x,)).model
    assert torch.equal(cut.hidden.weight, model.hidden.weight)
    cut = prune_layer_neurons(model, "b", 0.5, (x,)).model
    kept = sorted(model.b.weight.flatten(1).norm(dim=1).argsort()[3:].tolist())
    columns = [4 * channel + position for channel in kept for position in range(4)]
    assert torch.equal(cut.hidden.weight, model.hidden.weight[:, columns])


def test_layers_can_be_kept():
    model, x = settled(Sequence(), 2, 2, 12)
    cut = shrink_model(model, 0.5, (x,), keep=("b",))
    assert (cut.model.a.out_channels, cut.model.b.out_channels, cut.model.hidden.out_features) == (4, 6, 3)
    assert "kept as asked" in next(n.text for n in cut.notes if n.layer == "b")
    nested = nn.Sequential(
        nn.Sequential(nn.Linear(6, 4), nn.ReLU()), nn.Linear(4, 4), nn.Linear(4, 2)
    ).double()
    cut = shrink_model(nested, 0.5, (x[:, 0, :6],), keep=("0",)).model
    assert (cut[0][0].out_features, cut[1].out_features) == (4, 2)


def test_a_shrink_of_ones_own_is_called_layer_by_layer_on_the_result_so_far():
    model, x = settled(Residual(), 2, 3, 8, 8)
    calls = []

    def mine(model, layer, ratio, example_inputs, **settings):
        calls.append((layer, ratio, model.stem.out_channels, settings["importance"]))
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(1.0)
        return prune_layer_neurons(model, layer, ratio, example_inputs, **settings)

    cut = shrink_model(model, 0.5, (x,), importance="l1", shrink=mine)
    assert calls == [("first", 0.5, 8, "l1"), ("stem", 0.5, 8, "l1")]  # from the last to the first
    assert cut.model.first.weight.shape == (3, 4, 3, 3)
    assert {c.layer for c in cut.changes} >= {"stem", "first", "head"}


def test_a_shrink_of_ones_own_finds_every_neuron_as_it_came_in():
    model, x = settled(Mlp(), 2, 6)

    def mine(model, layer, ratio, example_inputs, **settings):
        return prune_layer_neurons(model, layer, ratio, example_inputs, **settings)

    for importance in ("l1", "l2", "variance"):
        one = shrink_model(model, 0.5, (x,), importance=importance)
        other = shrink_model(model, 0.5, (x,), importance=importance, shrink=mine)
        assert all(map(torch.equal, one.model.state_dict().values(), other.model.state_dict().values()))


def test_a_shrink_that_breaks_the_network_is_named_with_the_layer():
    model, x = settled(Mlp(), 2, 6)
    before = copy.deepcopy(model.state_dict())

    def narrow(model, layer, ratio, example_inputs, **settings):
        linear = model.get_submodule(layer)
        linear.weight = nn.Parameter(linear.weight[:2])
        linear.bias = nn.Parameter(linear.bias[:2])
        return Compressed(model)

    def beheaded(model, layer, ratio, example_inputs, **settings):
        done = prune_layer_neurons(model, layer, ratio, example_inputs, **settings)
        return dataclasses.replace(done, model=nn.Sequential(done.model, nn.Linear(3, 2).double()))

    def forgetful(model, layer, ratio, example_inputs, **settings):
        return model

    def failing(model, layer, ratio, example_inputs, **settings):
        raise KeyError("weights")

    for shrink, says in (
        (narrow, "narrow broke the network at layer 'b'.*RuntimeError"),
        (beheaded, r"beheaded broke the network at layer 'b'.*\(2, 2\)"),
        (forgetful, "forgetful returned a Mlp"),
        (failing, "failing failed at layer 'b'.*KeyError"),
    ):
        with pytest.raises(ModelError, match=says):
            shrink_model(model, 0.5, (x,), shrink=shrink)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
