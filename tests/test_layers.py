"""Layers as plain data: widths follow tensors, and a stock network takes any honest shape and no other."""

import copy
import dataclasses
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tinypress.errors import ModelError
from tinypress.layers import (
    LayerShape,
    copy_model,
    fit_attributes,
    rebuild,
    replace_module,
    set_width,
    structure,
)


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, groups=8),
        nn.Flatten(),
        nn.Linear(16, 4),
    )


def shrunk() -> nn.Sequential:
    """``net`` with half of the first convolution's channels, built the ordinary way."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 8, 3, groups=4),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


def change(shapes, module, /, **fields):
    return [dataclasses.replace(s, **fields) if s.module == module else s for s in shapes]


@pytest.mark.parametrize(
    ("layer", "tensors", "expected"),
    [
        (nn.Linear(4, 6), {"weight": (3, 2), "bias": (3,)}, {"in_features": 2, "out_features": 3}),
        (nn.Conv1d(4, 6, 3), {"weight": (2, 3, 3)}, {"in_channels": 3, "out_channels": 2, "groups": 1}),
        (
            nn.Conv2d(4, 6, 3, groups=2),
            {"weight": (4, 1, 3, 3)},
            {"in_channels": 2, "out_channels": 4, "groups": 2},
        ),
        (
            nn.Conv2d(4, 4, 3, groups=4),
            {"weight": (3, 1, 3, 3)},
            {"in_channels": 3, "out_channels": 3, "groups": 3},
        ),
        (
            nn.Conv2d(4, 8, 3, groups=4),
            {"weight": (6, 1, 3, 3)},
            {"in_channels": 3, "out_channels": 6, "groups": 3},
        ),
        (
            nn.Conv2d(4, 8, 3, groups=4),
            {"weight": (2, 1, 3, 3)},
            {"in_channels": 1, "out_channels": 2, "groups": 1},
        ),
        (
            nn.ConvTranspose1d(4, 6, 3),
            {"weight": (2, 5, 3)},
            {"in_channels": 2, "out_channels": 5, "groups": 1},
        ),
        (nn.BatchNorm1d(4, affine=False), {"running_mean": (3,)}, {"num_features": 3}),
        (nn.InstanceNorm1d(4, affine=True), {"weight": (3,)}, {"num_features": 3}),
        (nn.GroupNorm(2, 4), {"weight": (2,)}, {"num_channels": 2}),
        (nn.LayerNorm((4, 5)), {"weight": (2, 3)}, {"normalized_shape": (2, 3)}),
        (nn.Embedding(9, 4), {"weight": (7, 2)}, {"num_embeddings": 7, "embedding_dim": 2}),
        (nn.PReLU(4), {"weight": (3,)}, {"num_parameters": 3}),
    ],
)
def test_attributes_follow_the_tensors(layer, tensors, expected):
    for name, shape in tensors.items():
        new = torch.zeros(shape)
        setattr(layer, name, nn.Parameter(new) if name in layer._parameters else new)
    fit_attributes(layer)
    assert {name: getattr(layer, name) for name in expected} == expected


def test_structure_names_what_owns_tensors_and_every_identity_once():
    model = net()
    shapes = structure(model)
    assert [(s.module, s.kind) for s in shapes] == [
        ("0", "Conv2d"),
        ("1", "BatchNorm2d"),
        ("3", "Conv2d"),
        ("5", "Linear"),
    ]
    assert shapes[2].tensors == {"weight": [16, 1, 3, 3], "bias": [16]}
    assert shapes[1].tensors["num_batches_tracked"] == []
    replace_module(model, "2", nn.Identity())
    model.append(model[0])
    assert [s.module for s in structure(model)] == ["0", "1", "2", "3", "5"]


def test_only_persistent_buffers_are_listed():
    layer = nn.Linear(2, 2)
    layer.register_buffer("kept", torch.zeros(3))
    layer.register_buffer("passing", torch.zeros(3), persistent=False)
    assert set(structure(layer)[0].tensors) == {"weight", "bias", "kept"}


def test_a_lazy_module_is_refused():
    with pytest.raises(ModelError, match="LazyLinear"):
        structure(nn.Sequential(nn.LazyLinear(3)))


def test_a_cut_network_comes_back_bit_for_bit_through_json():
    cut = shrunk().eval()
    text = json.dumps([dataclasses.asdict(s) for s in structure(cut)])
    shapes = [LayerShape(**entry) for entry in json.loads(text)]
    stock = net()
    stock[0].weight.requires_grad_(False)
    before = copy.deepcopy(stock.state_dict())
    again = rebuild(stock, shapes).eval()
    again.load_state_dict(cut.state_dict())
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(again(x), cut(x))
    assert not again[0].weight.requires_grad
    assert again[5].weight.requires_grad
    assert again[3].groups == 4
    assert all(torch.equal(before[k], v) for k, v in stock.state_dict().items())


def test_dtype_is_the_stocks():
    assert rebuild(net().half(), structure(shrunk()))[0].weight.dtype == torch.float16


def test_a_folded_batch_norm_comes_back():
    cut = shrunk().eval()
    replace_module(cut, "1", nn.Identity())
    cut[0].bias = nn.Parameter(torch.randn(4))
    again = rebuild(net(), structure(cut)).eval()
    again.load_state_dict(cut.state_dict())
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(again(x), cut(x))
    cut[5].bias = None
    again = rebuild(net(), structure(cut)).eval()
    again.load_state_dict(cut.state_dict())
    assert torch.equal(again(x), cut(x))


class Own(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(width))


@pytest.mark.parametrize(
    "model",
    [
        nn.LSTM(3, 4, bidirectional=True),
        nn.GRU(3, 4),
        nn.MultiheadAttention(8, 2),
        nn.TransformerEncoderLayer(8, 2),
        nn.Bilinear(2, 3, 4),
        nn.ParameterList([torch.zeros(2)]),
        Own(),
        nn.Sequential(nn.Identity(), nn.Linear(1, 1)),
        nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)),
    ],
    ids=lambda model: type(model).__name__,
)
def test_other_modules_pass_through_unchanged(model):
    again = rebuild(model, structure(model))
    again.load_state_dict(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert structure(again) == structure(model)


def test_a_module_of_ones_own_takes_other_sizes_and_an_lstm_with_a_projection_does_not():
    assert rebuild(Own(4), structure(Own(3))).scale.shape == (3,)
    smaller = rebuild(nn.LSTM(3, 4, num_layers=2), structure(nn.LSTM(3, 2, num_layers=2)))
    assert (smaller.hidden_size, smaller.input_size) == (2, 3)
    assert smaller(torch.zeros(5, 1, 3))[0].shape == (5, 1, 2)
    with pytest.raises(ModelError, match="a LSTM cannot be resized"):
        rebuild(nn.LSTM(3, 4, proj_size=2), structure(nn.LSTM(3, 3, proj_size=2)))


class Headed(nn.Module):
    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads, self._hidden, self.linear = heads, heads, nn.Linear(4, 4)


def test_a_number_of_ones_own_travels_with_the_structure():
    pruned = Headed(4)
    set_width(pruned, "heads", 2)
    again = rebuild(Headed(4), structure(pruned))
    assert again.heads == 2
    assert structure(again) == structure(pruned)


@pytest.mark.parametrize(
    "attributes",
    [
        {"_hidden": 2},
        {"training": 1},
        {"linear": 2},
        {"forward": 3},
        {"heads": -1},
        {"heads": True},
        {"heads": [2]},
    ],
)
def test_a_hostile_number_is_refused(attributes):
    shapes = [dataclasses.replace(each) for each in structure(Headed(4))]
    hostile = [LayerShape("", "Headed", attributes, {}), *shapes]
    with pytest.raises(ModelError):
        rebuild(Headed(4), hostile)


def tied(width: int) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(width, width), nn.Linear(width, width))
    model[1].weight = model[0].weight
    return model


def test_shared_parameters_stay_shared():
    again = rebuild(tied(4), structure(tied(3)))
    assert again[0].weight is again[1].weight
    assert again[0].weight.shape == (3, 3)
    shapes = structure(tied(3))
    half = [shapes[0], structure(tied(4))[1]]
    with pytest.raises(ModelError, match="shared"):
        rebuild(tied(4), half)
    wide = dataclasses.replace(
        shapes[1], attributes={"in_features": 2, "out_features": 3}, tensors={"weight": [3, 2], "bias": [3]}
    )
    with pytest.raises(ModelError, match="two shapes"):
        rebuild(tied(4), [shapes[0], wide])


GOOD = structure(shrunk())


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        (GOOD[:-1], "'5'.*not listed"),
        ([*GOOD, GOOD[0]], "twice"),
        (change(GOOD, "5", module="6"), "'6'.*no module"),
        (change(GOOD, "5", module="5.weight"), "no module"),
        (change(GOOD, "5", module="__class__"), "no module"),
        (change(GOOD, "5", kind="Bilinear"), "'5'.*it is a Linear"),
        (change(GOOD, "5", kind=["Linear"]), "not text"),
        (change(GOOD, "5", tensors=None), "mappings"),
        (change(GOOD, "5", tensors={"weight": [4, 8, 1], "bias": [4]}), "2 dimensions"),
        (change(GOOD, "5", tensors={"weight": [4, 0], "bias": [4]}), "no elements"),
        (change(GOOD, "5", tensors={"weight": [4, -8], "bias": [4]}), "out of range"),
        (change(GOOD, "5", tensors={"weight": [4, 2**60], "bias": [4]}), "out of range"),
        (change(GOOD, "5", tensors={"weight": [2**30, 2**30], "bias": [4]}), "more than 2147483648 elements"),
        (change(GOOD, "5", tensors={"weight": [4, 8.0], "bias": [4]}), "whole numbers"),
        (change(GOOD, "5", tensors={"weight": [4, True], "bias": [4]}), "whole numbers"),
        (change(GOOD, "5", tensors={"weight": "48", "bias": [4]}), "whole numbers"),
        (change(GOOD, "5", tensors={"weight": [4, 8], "bias": [4], "forward": [4]}), "no 'forward'"),
        (change(GOOD, "5", tensors={"bias": [4]}), "its weight is missing"),
        (change(GOOD, "0", tensors={"weight": [4, 3, 3, 3], "bias": [5]}), "bias"),
        (change(GOOD, "5", attributes={"in_features": 9, "out_features": 4}), "attributes"),
        (change(GOOD, "5", attributes={"in_features": 8, "out_features": 4, "training": 0}), "attributes"),
        (change(GOOD, "5", attributes={"in_features": 8.0, "out_features": 4}), "attributes"),
        (change(GOOD, "0", attributes={"in_channels": 3, "out_channels": 4, "groups": True}), "attributes"),
        (change(GOOD, "3", attributes={"in_channels": 4, "out_channels": 8, "groups": 2}), "attributes"),
        ([LayerShape("", "Identity"), *GOOD], "no module"),
        ([LayerShape("9", "Identity"), *GOOD], "no module"),
    ],
)
def test_hostile_shapes_are_refused_with_the_modules_name(shapes, says):
    with pytest.raises(ModelError, match=says):
        rebuild(net(), shapes)


def test_the_limit_is_the_callers():
    total = sum(p.numel() for p in shrunk().state_dict().values())
    assert rebuild(net(), GOOD, limit_elements=total)
    with pytest.raises(ModelError, match="elements"):
        rebuild(net(), GOOD, limit_elements=total - 1)


sizes = st.lists(st.integers(-2, 2**41) | st.booleans() | st.floats() | st.none(), max_size=5)


@settings(max_examples=200)
@given(
    st.sampled_from([s.module for s in GOOD]),
    st.dictionaries(st.sampled_from(["weight", "bias", "running_mean", "x"]), sizes | st.none() | st.text()),
    st.dictionaries(st.sampled_from(["in_features", "groups", "out_channels"]), st.integers() | sizes),
)
def test_fuzzed_shapes_raise_nothing_but_model_error(module, tensors, attributes):
    try:
        rebuild(net(), change(GOOD, module, tensors=tensors, attributes=attributes), limit_elements=10_000)
    except ModelError:
        pass
    else:
        pytest.fail("nonsense was taken")


def test_replacing_a_module_keeps_its_mode_and_refuses_unknown_paths():
    model = net().eval()
    replace_module(model, "2", nn.Dropout())
    assert not model[2].training
    for path in ("", "7", "0.weight"):
        with pytest.raises(ModelError, match="no module"):
            replace_module(model, path, nn.Identity())


def test_a_network_that_cannot_be_copied_is_refused():
    model = nn.Linear(2, 2)
    model.cache = model.weight * 2
    with pytest.raises(ModelError, match="cannot be copied"):
        copy_model(model)
