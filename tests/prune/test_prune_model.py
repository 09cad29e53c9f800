"""Pruning a whole network: which weights, counted how, and by whose score."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils import prune as torch_prune

from tinypress.errors import InputError, ModelError
from tinypress.facts import Compressed
from tinypress.prune import (
    calculate_sparsity,
    keep_zeros,
    prune_model_by_magnitude,
    prune_weights_at_random,
    prune_weights_by_magnitude,
)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.up = nn.ConvTranspose2d(8, 4, 2)
        self.fc1 = nn.Linear(4 * 81, 20)
        self.fc2 = nn.Linear(20, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.fc1(self.up(self.norm(self.conv(x)).relu()).flatten(1)).relu())


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.body = nn.Linear(16, 16)
        self.head = nn.Linear(16, 50, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.embedding(x)))


def plainly(layer: nn.Module, sparsity: float) -> Compressed:
    """Somebody else's function of the same meaning: a stable sort."""
    layer = copy.deepcopy(layer)
    flat = layer.weight.detach().view(-1)
    flat[flat.abs().argsort(stable=True)[: round(sparsity * flat.numel())]] = 0.0
    return Compressed(layer)


def weights_of(model: nn.Module) -> list[torch.Tensor]:
    return [p for p in model.parameters() if p.ndim > 1]


def test_global_survivors_are_those_of_torch():
    model = Net()
    ours = prune_model_by_magnitude(model, 0.8)
    theirs = copy.deepcopy(model)
    layers = [theirs.conv, theirs.up, theirs.fc1, theirs.fc2]
    torch_prune.global_unstructured(
        [(layer, "weight") for layer in layers], torch_prune.L1Unstructured, amount=0.8
    )
    for layer, name in zip(layers, ["conv", "up", "fc1", "fc2"], strict=True):
        assert torch.equal(getattr(ours.model, name).weight, layer.weight)
    assert ours.pruned == {"conv.weight", "up.weight", "fc1.weight", "fc2.weight"}
    assert ours.notes == ()


@settings(max_examples=30)
@given(sparsity=st.floats(0, 1), decimals=st.integers(0, 3))
def test_global_is_one_ranking_of_all_weights_end_to_end(sparsity: float, decimals: int):
    model = nn.Sequential(nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, 5), nn.Linear(5, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3).copy_(torch.round(parameter, decimals=decimals))  # many ties
    fast = prune_model_by_magnitude(model, sparsity)
    row = torch.cat([w.detach().flatten() for w in weights_of(model)])
    row[row.abs().argsort(stable=True)[: round(sparsity * len(row))]] = 0.0
    assert torch.equal(torch.cat([w.flatten() for w in weights_of(fast.model)]), row)
    ours_through_the_seam = prune_model_by_magnitude(
        model, sparsity, score=lambda layer, sparsity: prune_weights_by_magnitude(layer, sparsity)
    )
    theirs = prune_model_by_magnitude(model, sparsity, score=plainly)
    for other in (ours_through_the_seam, theirs):
        assert other.notes == ()
        assert other.changes == fast.changes
        for a, b in zip(fast.model.parameters(), other.model.parameters(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("score", [prune_weights_by_magnitude, plainly, prune_weights_at_random])
def test_each_layer_reaches_the_sparsity_on_its_own(score):
    model = Net()
    result = prune_model_by_magnitude(model, 0.75, scope="layer", score=score)
    for before, after in zip(weights_of(model), weights_of(result.model), strict=True):
        assert int((after == 0).sum()) == round(0.75 * before.numel())
        assert torch.equal(after[after != 0], before[after != 0])
    assert [change.layer for change in result.changes] == ["conv", "up", "fc1", "fc2"]
    assert all(abs(change.now - 0.75) < 0.01 for change in result.changes)
    assert result.notes == ()


@pytest.mark.parametrize("score", [prune_weights_by_magnitude, plainly])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_network_given_is_not_changed(scope, score):
    model = Net()
    before = copy.deepcopy(model.state_dict())
    result = prune_model_by_magnitude(model, 0.5, scope=scope, score=score)
    with torch.no_grad():
        for parameter in result.model.parameters():
            parameter.fill_(1.0)
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)


def test_nothing_and_everything():
    model = Net()
    x = torch.randn(2, 3, 8, 8)
    model.eval()
    assert torch.equal(prune_model_by_magnitude(model, 0.0).model(x), model(x))
    empty = prune_model_by_magnitude(model, 1.0).model
    assert calculate_sparsity(empty) == 1.0
    assert torch.equal(empty(x), model.fc2.bias.expand(2, 10))


@pytest.mark.parametrize("score", [prune_weights_by_magnitude, plainly])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_shared_parameters_count_once_and_stay_shared(scope, score):
    result = prune_model_by_magnitude(Tied(), 0.5, scope=scope, score=score)
    assert result.model.head.weight is result.model.embedding.weight
    assert result.pruned == {"embedding.weight", "body.weight"}
    assert sum(int((p == 0).sum()) for n, p in result.model.named_parameters() if n in result.pruned) == 528
    assert calculate_sparsity(result.model) == 0.5
    assert result.notes == ()
    result.model(torch.tensor([[1, 2]]))


def test_dtypes_are_ranked_together():
    model = nn.Sequential(nn.Linear(20, 20).half(), nn.Linear(20, 20).bfloat16(), nn.Linear(20, 20).double())
    result = prune_model_by_magnitude(model, 0.6)
    row = torch.cat([w.detach().double().flatten() for w in weights_of(model)])
    row[row.abs().argsort(stable=True)[:720]] = 0.0
    assert torch.equal(torch.cat([w.double().flatten() for w in weights_of(result.model)]), row)
    assert [w.dtype for w in weights_of(result.model)] == [torch.float16, torch.bfloat16, torch.float64]
    other = prune_model_by_magnitude(model, 0.6, score=plainly)
    for a, b in zip(result.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("score", [prune_weights_by_magnitude, plainly])
@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_matrices_are_pruned_and_used(kind, scope, score):
    model = nn.Sequential(kind(6, 5, num_layers=2, bidirectional=True))
    result = prune_model_by_magnitude(model, 1.0, scope=scope, score=score)
    assert len(result.pruned) == 8
    assert "0.weight_hh_l1_reverse" in result.pruned
    x, y = torch.randn(3, 2, 6), torch.randn(3, 2, 6)
    assert torch.equal(result.model(x)[0], result.model(y)[0])  # nothing but the biases is left
    assert not torch.equal(model(x)[0], model(y)[0])
    result.model(x)[0].sum().backward()
    assert result.model[0].weight_ih_l0.grad is not None


def test_attention_is_pruned():
    result = prune_model_by_magnitude(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 0.5)
    assert "self_attn.in_proj_weight" in result.pruned
    assert "self_attn.out_proj.weight" in result.pruned
    assert calculate_sparsity(result.model) == 0.5


def test_what_was_left_alone_is_said():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(10, 4)
            self.position = nn.Parameter(torch.randn(1, 5, 4))
            self.fc = nn.Linear(4, 4)
            self.norm = nn.LayerNorm((5, 4))
            self.ruled = parametrize.register_parametrization(nn.Linear(4, 4), "weight", nn.Identity())

    model = Odd()
    result = prune_model_by_magnitude(model, 0.5)
    assert result.pruned == {"fc.weight"}
    told = {note.layer: note.text for note in result.notes}
    assert set(told) == {"", "embedding", "ruled.parametrizations.weight"}
    assert "position [1×5×4]" in told[""]
    assert "weight [10×4]" in told["embedding"]
    assert {note.code for note in result.notes} == {"TP111"}
    assert torch.equal(result.model.embedding.weight, model.embedding.weight)
    named = prune_model_by_magnitude(model, 0.5, layers=["embedding"])
    assert named.pruned == {"embedding.weight"}
    assert named.notes == ()
    assert torch.equal(named.model.fc.weight, model.fc.weight)


def test_only_the_named_layers():
    model = Net()
    result = prune_model_by_magnitude(model, 0.5, layers=["fc2", "conv"])
    assert result.pruned == {"conv.weight", "fc2.weight"}
    assert int((result.model.conv.weight == 0).sum() + (result.model.fc2.weight == 0).sum()) == 208
    assert torch.equal(result.model.fc1.weight, model.fc1.weight)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"sparsity": 1.5}, "sparsity is 1.5"),
        ({"sparsity": True}, "sparsity is a bool"),
        ({"scope": "network"}, "scope is 'network'"),
        ({"layers": ["fc3"]}, "Did you mean 'fc"),
        ({"layers": ["zzzz"]}, "Choose from 'conv', 'norm'"),
        ({"layers": "fc1"}, r"\['fc1'\]"),
        ({"layers": []}, "layers is empty"),
        ({"layers": ["norm"]}, "BatchNorm2d"),
        ({"layers": [""]}, "no weights of its own"),
    ],
)
def test_wrong_settings_are_refused(settings, text):
    with pytest.raises(InputError, match=text):
        prune_model_by_magnitude(Net(), **{"sparsity": 0.5, **settings})


def test_networks_that_cannot_be_pruned_are_refused():
    with pytest.raises(ModelError, match="no layer with weights"):
        prune_model_by_magnitude(nn.Sequential(nn.ReLU(), nn.BatchNorm1d(3)), 0.5)
    with pytest.raises(ModelError, match=r"'0\.weight' has no values"):
        prune_model_by_magnitude(nn.Sequential(nn.LazyLinear(3)), 0.5)
    with pytest.raises(InputError, match=r"not a torch\.nn\.Module"):
        prune_model_by_magnitude(torch.ones(3), 0.5)  # type: ignore[arg-type]
    model = Net()
    model.kept_output = model(torch.randn(1, 3, 8, 8))
    with pytest.raises(ModelError, match="cannot be copied"):
        prune_model_by_magnitude(model, 0.5)


@pytest.mark.parametrize("score", [prune_weights_by_magnitude, plainly])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_nan_is_refused_by_name(scope, score):
    model = Net()
    with torch.no_grad():
        model.fc1.weight[3, 3] = float("nan")
    with pytest.raises(ModelError, match=r"'fc1\.weight' holds NaN"):
        prune_model_by_magnitude(model, 0.5, scope=scope, score=score)


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_a_score_that_prunes_another_number_is_told(scope):
    def too_few(layer: nn.Module, sparsity: float) -> Compressed:
        return plainly(layer, sparsity / 2)

    result = prune_model_by_magnitude(Net(), 0.5, scope=scope, score=too_few)
    assert abs(calculate_sparsity(result.model) - 0.25) < 0.01
    assert len(result.notes) == (1 if scope == "global" else 4)
    assert {(note.code, note.severity) for note in result.notes} == {("TP110", "warning")}
    assert "too_few" in result.notes[0].text


def _changed_shape(layer: nn.Module, sparsity: float) -> Compressed:
    layer.weight = nn.Parameter(layer.weight.detach()[:, :1].clone())
    return Compressed(layer)


def _scaled(layer: nn.Module, sparsity: float) -> Compressed:
    with torch.no_grad():
        layer.weight.mul_(2.0)
    return Compressed(layer)


def _bare(layer: nn.Module, sparsity: float) -> Compressed:
    return layer.weight  # type: ignore[return-value]


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize(
    ("score", "text"),
    [(_changed_shape, "returned weights"), (_scaled, "that it kept"), (_bare, "did not return a Compressed")],
)
def test_a_score_that_breaks_the_contract_is_refused(scope, score, text):
    model = Net()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match=text):
        prune_model_by_magnitude(model, 0.5, scope=scope, score=score)
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_zeros_are_kept_through_training(dtype):
    result = prune_model_by_magnitude(Tied().to(dtype), 0.6)
    model = result.model
    zero = {name: model.get_parameter(name) == 0 for name in result.pruned}
    keep = keep_zeros(model, result.pruned)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randint(0, 50, (4, 3))).float().square().sum().backward()
        optimizer.step()
        assert any(bool((model.get_parameter(name)[zero[name]] != 0).any()) for name in zero)
        keep()
        for name, where in zero.items():
            parameter = model.get_parameter(name)
            assert torch.equal(parameter[where], torch.zeros_like(parameter[where]))
            assert bool((parameter[~where] != 0).all())


def test_keeping_zeros_survives_nan_and_any_memory_layout():
    model = nn.Sequential(nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last))
    with torch.no_grad():
        model[0].weight[:, 1] = 0.0
    keep = keep_zeros(model, ["0.weight"])
    with torch.no_grad():
        model[0].weight.fill_(float("nan"))
    keep()
    assert bool((model[0].weight[:, 1] == 0).all())
    assert bool(model[0].weight[:, 0].isnan().all())


def test_keeping_zeros_knows_every_name_of_a_shared_parameter():
    keep_zeros(Tied(), ["head.weight"])()
    with pytest.raises(InputError, match=r"Did you mean 'head\.weight'"):
        keep_zeros(Tied(), ["head.wieght"])
