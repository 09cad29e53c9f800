"""Pruning one layer: exactly as many as asked, the smallest, the earlier among equals."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from tinypress.errors import InputError, ModelError
from tinypress.prune import calculate_sparsity, prune_weights_at_random, prune_weights_by_magnitude, threshold
from tinypress.prune.blocks import BLOCK, magnitude_bits

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def layer_with(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    layer.weight = nn.Parameter(weight)
    return layer


def plainly_pruned(weight: Tensor, count: int) -> Tensor:
    """The definition: a stable sort of the magnitudes, the first ``count`` go."""
    flat = weight.detach().double().flatten()
    order = flat.abs().argsort(stable=True)
    flat[order[:count]] = 0.0
    return flat.view(weight.shape).to(weight.dtype)


@given(
    values=st.lists(
        st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 3.0, 1e-40, -1e-40]), min_size=1, max_size=60
    ),
    sparsity=st.floats(0, 1),
)
def test_exactly_the_count_is_pruned_and_the_earlier_among_equals(values: list[float], sparsity: float):
    weight = torch.tensor([values])
    pruned = prune_weights_by_magnitude(layer_with(weight), sparsity).model.weight
    count = round(sparsity * len(values))
    assert torch.equal(pruned, plainly_pruned(weight, count))
    assert int((pruned == 0).sum()) == max(count, sum(value == 0 for value in values))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sparsity", [0.0, 0.001, 0.5, 0.9, 1.0])
def test_every_dtype(dtype: torch.dtype, sparsity: float):
    weight = torch.randn(37, 53, dtype=torch.float64).to(dtype)
    pruned = prune_weights_by_magnitude(layer_with(weight), sparsity).model.weight
    assert pruned.dtype == dtype
    assert torch.equal(pruned, plainly_pruned(weight, round(sparsity * weight.numel())))


def test_the_earlier_of_equal_weights_goes_first():
    pruned = prune_weights_by_magnitude(layer_with(torch.tensor([[2.0, -1.0, 1.0], [-1.0, 1.0, -2.0]])), 0.5)
    assert pruned.model.weight.tolist() == [[2.0, 0.0, 0.0], [0.0, 1.0, -2.0]]


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9, 0.99999])
def test_large_layers_take_the_sampled_bracket_and_agree_with_sorting(sparsity: float):
    weight = torch.randn(3, BLOCK + 17)
    pruned = prune_weights_by_magnitude(layer_with(weight), sparsity).model.weight
    assert torch.equal(pruned, plainly_pruned(weight, round(sparsity * weight.numel())))


@pytest.mark.parametrize("levels", [1, 3, 7])
def test_large_layers_of_few_different_values(levels: int):
    weight = torch.randn(3, BLOCK).mul_(levels).round_()
    for sparsity in (0.05, 0.5, 0.93):
        pruned = prune_weights_by_magnitude(layer_with(weight), sparsity).model.weight
        assert torch.equal(pruned, plainly_pruned(weight, round(sparsity * weight.numel())))


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_the_bracket_decides_how_fast_and_never_what(dtype: torch.dtype, data: st.DataObject):
    """Brackets that miss on either side by one, or hold too many: the threshold stays that of sorting."""
    magnitudes = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, 2.0, 3.0])
    weight = torch.tensor(data.draw(st.lists(magnitudes, min_size=1, max_size=40)), dtype=dtype)
    bits = magnitude_bits(weight).copy()
    low, high = sorted(int(bits[data.draw(st.integers(0, len(bits) - 1))]) for _ in range(2))
    count = data.draw(st.integers(1, len(bits)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threshold, "_SMALL", 0)
        patch.setattr(threshold, "_bracket", lambda *_: (low, high))
        found = threshold.find_threshold("test", {"weight": weight}, count)
    wanted = np.sort(bits)[count - 1]
    equal = int((bits == wanted).sum())
    assert found == threshold.Threshold(int(wanted), count - int((bits < wanted).sum()), equal)


def test_sorted_and_clustered_weights():
    weight = torch.cat([torch.full((1, BLOCK), 0.5), torch.linspace(0, 1, 2 * BLOCK)[None]], dim=1)
    pruned = prune_weights_by_magnitude(layer_with(weight), 0.6).model.weight
    assert torch.equal(pruned, plainly_pruned(weight, round(0.6 * weight.numel())))


def test_survivors_are_those_of_torch():
    layer = nn.Linear(64, 48)
    ours = prune_weights_by_magnitude(layer, 0.7).model.weight
    theirs = copy.deepcopy(layer)
    torch_prune.l1_unstructured(theirs, "weight", amount=0.7)
    assert torch.equal(ours, theirs.weight)


def test_pruning_goes_on_from_what_was_pruned_before():
    half = prune_weights_by_magnitude(nn.Linear(100, 10), 0.5).model
    result = prune_weights_by_magnitude(half, 0.9)
    assert int((result.model.weight == 0).sum()) == 900
    (change,) = result.changes
    assert (change.what, change.was, change.now) == ("sparsity", 0.5, 0.9)
    assert result.pruned == {"weight"}


@pytest.mark.parametrize("prune", [prune_weights_by_magnitude, prune_weights_at_random])
def test_the_layer_itself_is_not_changed(prune):
    layer = nn.Conv2d(3, 8, 3)
    layer.weight.requires_grad_(False)
    before = copy.deepcopy(layer.state_dict())
    pruned = prune(layer, 0.8).model
    assert all(torch.equal(layer.state_dict()[name], before[name]) for name in before)
    assert torch.equal(pruned.bias, layer.bias)
    assert pruned.bias.data_ptr() != layer.bias.data_ptr()
    assert pruned.weight.shape == (8, 3, 3, 3)
    assert not pruned.weight.requires_grad
    assert pruned.bias.requires_grad


@pytest.mark.parametrize("sparsity", [0.0, 0.4])
def test_the_result_has_memory_of_its_own(sparsity: float):
    layer = nn.Linear(4, 4)
    pruned = prune_weights_by_magnitude(layer, sparsity).model
    before = layer.weight.detach().clone()
    with torch.no_grad():
        pruned.weight.fill_(7.0)
    assert torch.equal(layer.weight, before)


def test_memory_layout_is_kept():
    layer = nn.Conv2d(4, 8, 3).to(memory_format=torch.channels_last)
    pruned = prune_weights_by_magnitude(layer, 0.5).model.weight
    assert pruned.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(pruned, plainly_pruned(layer.weight, 144))


@given(sparsity=st.floats(0, 1), seed=st.integers(0, 5))
def test_random_pruning_keeps_the_same_count_and_takes_zeros_first(sparsity: float, seed: int):
    weight = torch.randn(7, 11)
    weight[2] = 0.0
    layer = layer_with(weight)
    pruned = prune_weights_at_random(layer, sparsity, seed=seed).model.weight
    assert int((pruned == 0).sum()) == max(round(sparsity * 77), 11)
    assert torch.equal(pruned[pruned != 0], weight[pruned != 0])
    assert torch.equal(pruned, prune_weights_at_random(layer, sparsity, seed=seed).model.weight)


def test_random_pruning_differs_by_seed_and_leaves_the_global_state_alone():
    layer = nn.Linear(30, 30)
    state = torch.get_rng_state()
    first, second = (prune_weights_at_random(layer, 0.5, seed=seed).model.weight for seed in (0, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(first, second)
    removed = layer.weight[first == 0].abs().mean()
    assert removed > 0.8 * layer.weight.abs().mean()  # not the smallest ones


@pytest.mark.parametrize("prune", [prune_weights_by_magnitude, prune_weights_at_random])
@pytest.mark.parametrize("sparsity", [-0.1, 1.1, float("nan"), True, "0.5", None, 90])
def test_a_wrong_sparsity_is_refused(prune, sparsity):
    with pytest.raises(InputError, match=r"Linear, sparsity=.*from 0 to 1"):
        prune(nn.Linear(2, 2), sparsity)


@pytest.mark.parametrize("prune", [prune_weights_by_magnitude, prune_weights_at_random])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 1.0])
def test_weights_that_are_not_finite_are_refused(prune, bad: float, dtype: torch.dtype, sparsity: float):
    layer = nn.Linear(5, 5, dtype=dtype)
    with torch.no_grad():
        layer.weight[4, 4] = bad
    with pytest.raises(ModelError, match="'weight' holds NaN or infinity"):
        prune(layer, sparsity)


@pytest.mark.parametrize(
    "layer",
    [nn.ReLU(), nn.LazyLinear(3), nn.Linear(2, 2, device="meta"), nn.Linear(2, 2, dtype=torch.complex64)],
)
def test_a_layer_without_readable_weights_is_refused(layer: nn.Module):
    with pytest.raises(ModelError):
        prune_weights_by_magnitude(layer, 0.5)


def test_sparsity_of_tensors_and_modules():
    assert calculate_sparsity(torch.tensor([0.0, -0.0, 1.0, float("nan")])) == 0.5
    assert calculate_sparsity(torch.tensor([[0, 1], [2, 3]])) == 0.25
    assert calculate_sparsity(torch.empty(0)) == 0.0
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight[:2] = 0.0
        model[0].bias.zero_()
        model[1].weight.zero_()
    assert calculate_sparsity(model) == 8 / 24
    assert calculate_sparsity(model[1]) == 1.0
    with pytest.raises(InputError):
        calculate_sparsity([1.0])  # type: ignore[arg-type]
    with pytest.raises(ModelError):
        calculate_sparsity(nn.ReLU())
