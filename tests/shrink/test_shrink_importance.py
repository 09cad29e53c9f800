"""Importances against plain formulas, and which neurons they take."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from shrink_networks import Mlp, Residual, settled
from torch import nn

from tinypress.errors import InputError, ModelError
from tinypress.shrink import compute_neuron_importance, prune_layer_neurons, shrink_model
from tinypress.shrink.activity import record_activity


def dense(values) -> nn.Linear:
    layer = nn.Linear(values.shape[1], values.shape[0]).double()
    layer.weight = nn.Parameter(torch.from_numpy(values))
    return layer


@given(
    arrays(
        "float64",
        array_shapes(min_dims=2, max_dims=2, max_side=6),
        elements=st.floats(-100, 100, allow_subnormal=False),
    )
)
def test_weight_formulas(values):
    layer = dense(values)
    rows = values.tolist()
    l1 = [sum(abs(v) for v in row) for row in rows]
    l2 = [math.sqrt(sum(v * v for v in row)) for row in rows]
    variance = [sum((v - sum(row) / len(row)) ** 2 for v in row) / len(row) for row in rows]
    for method, expected in (("l1", l1), ("l2", l2), ("variance", variance)):
        found = compute_neuron_importance(layer, method)
        assert found.shape == (len(rows),)
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9)


def test_the_bias_is_not_counted_and_the_dtype_is_the_weights():
    layer = nn.Conv2d(2, 3, 3)
    before = compute_neuron_importance(layer)
    with torch.no_grad():
        layer.bias.fill_(100.0)
    assert torch.equal(compute_neuron_importance(layer), before)
    assert before.dtype == torch.float32
    assert compute_neuron_importance(nn.Linear(2, 3).half()).dtype == torch.float16


def test_activation_is_the_mean_absolute_value_over_batch_and_positions():
    layer = nn.Conv1d(1, 2, 1)
    activations = torch.tensor([[[1.0, -3.0], [0.0, 0.0]], [[2.0, 2.0], [0.0, -4.0]]])
    found = compute_neuron_importance(layer, "activation", activations=activations)
    assert found.tolist() == [2.0, 1.0]


def test_random_is_seeded():
    layer = nn.Linear(2, 50)
    one = compute_neuron_importance(layer, "random", seed=3)
    assert torch.equal(one, compute_neuron_importance(layer, "random", seed=3))
    assert not torch.equal(one, compute_neuron_importance(layer, "random", seed=4))
    state = torch.get_rng_state()
    compute_neuron_importance(layer, "random")
    assert torch.equal(state, torch.get_rng_state())


def test_bad_requests_say_what_to_do():
    layer = nn.Linear(4, 3)
    with pytest.raises(InputError, match="Did you mean 'l2'"):
        compute_neuron_importance(layer, "l22")
    with pytest.raises(InputError, match="calibration"):
        compute_neuron_importance(layer, "activation")
    with pytest.raises(InputError, match=r"\(5, 4\).*3 neurons"):
        compute_neuron_importance(layer, "activation", activations=torch.zeros(5, 4))
    with pytest.raises(ModelError, match="ReLU"):
        compute_neuron_importance(nn.ReLU())
    with torch.no_grad():
        layer.weight[1, 2] = math.nan
    with pytest.raises(ModelError, match="neuron 1 is nan"):
        compute_neuron_importance(layer)


def test_the_least_important_neurons_go_and_their_bias_with_them():
    model, x = settled(Mlp(), 4, 6)
    with torch.no_grad():
        for row in range(10):
            model.a.weight[row] = 10.0 - row
            model.a.bias[row] = row
    cut = prune_layer_neurons(model, "a", 0.4, (x,)).model
    assert cut.a.weight[:, 0].tolist() == [10, 9, 8, 7, 6, 5]
    assert cut.a.bias.tolist() == [0, 1, 2, 3, 4, 5]
    assert torch.equal(cut.b.weight, model.b.weight[:, :6])


def test_among_equals_the_earlier_go_first():
    model, x = settled(Mlp(), 4, 6)
    with torch.no_grad():
        model.a.weight.fill_(1.0)
        model.a.bias.copy_(torch.arange(10))
    assert prune_layer_neurons(model, "a", 0.3, (x,)).model.a.bias.tolist() == [3, 4, 5, 6, 7, 8, 9]


def test_activation_importance_runs_the_calibration_samples():
    model, x = settled(Mlp(), 4, 6)
    samples = torch.randn(300, 6, dtype=torch.float64)
    order = (samples @ model.a.weight.T + model.a.bias).abs().mean(0).argsort()
    cut = prune_layer_neurons(model, "a", 0.5, (x,), importance="activation", calibration=(samples,)).model
    kept = sorted(order[5:].tolist())
    assert torch.equal(cut.a.weight, model.a.weight[kept])
    assert not model.a._forward_hooks


def test_activation_importance_reads_channels_of_convolutions_and_of_linear_layers_over_time():
    model, x = settled(Residual(), 2, 3, 8, 8)
    seen = {}
    hook = model.first.register_forward_hook(lambda m, i, o: seen.update(first=o))
    model(x)
    hook.remove()
    kept = sorted(seen["first"].abs().mean((0, 2, 3)).argsort()[3:].tolist())
    cut = prune_layer_neurons(model, "first", 0.5, (x,), importance="activation", calibration=(x,)).model
    assert torch.equal(cut.first.weight, model.first.weight[kept])

    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    over_time = torch.randn(5, 3, 4, dtype=torch.float64)
    kept = sorted(net[0](over_time).abs().mean((0, 1)).argsort()[3:].tolist())
    cut = prune_layer_neurons(
        net, "0", 0.5, (over_time,), importance="activation", calibration=(over_time,)
    ).model
    assert torch.equal(cut[0].weight, net[0].weight[kept])


def test_activity_is_the_mean_over_all_batches_and_calls():
    torch.manual_seed(0)
    layer = nn.Linear(3, 3).double()
    model, samples = nn.Sequential(layer, layer), torch.randn(10, 3, dtype=torch.float64)
    once = layer(samples)
    expected = (once.abs().sum(0) + layer(once).abs().sum(0)) / 20
    found = record_activity("here", model, ["0"], (samples,), batch=4)["0"]
    torch.testing.assert_close(found, expected[None], rtol=1e-12, atol=0)


def test_random_takes_other_neurons_from_each_layer():
    model = nn.Sequential(nn.Linear(4, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 2))
    with torch.no_grad():
        model[0].bias.copy_(torch.arange(30))
        model[2].bias.copy_(torch.arange(30))
    cut = shrink_model(model, 0.5, (torch.randn(2, 4),), importance="random").model
    assert not torch.equal(cut[0].bias, cut[2].bias)


def test_the_random_control_differs_between_layers_and_seeds():
    model, x = settled(Mlp(), 4, 6)
    one, two, three = (
        shrink_model(model, 0.5, (x,), importance="random", seed=seed).model for seed in (1, 1, 2)
    )
    assert torch.equal(one(x), two(x))
    assert not torch.equal(one(x), three(x))
