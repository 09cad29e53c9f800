"""A shortened list says which entries it kept, and is shortened again from that; a hostile list is refused."""

import json
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tinypress.errors import ModelError
from tinypress.layers import LayerShape, Zero, rebuild, replace_module, shorten, stock_path, structure


class Layer(nn.Module):
    def __init__(self, place: int) -> None:
        super().__init__()
        self.layer_idx, self.number = place, place
        self.linear = nn.Linear(3, 3)


class Stage(nn.Module):
    def __init__(self, config: SimpleNamespace, depth: int) -> None:
        super().__init__()
        self.config, self.depth = config, depth
        self.layers = nn.ModuleList([Layer(place) for place in range(depth)])


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(
            num_hidden_layers=2, depths=[4, 3], layer_types=["a", "b"], hidden_size=4, width=4
        )
        self.stages = nn.ModuleList([Stage(self.config, depth) for depth in (4, 3)])


def again(model: nn.Module) -> nn.Module:
    return rebuild(
        Net(), [LayerShape(**x) for x in json.loads(json.dumps([asdict(x) for x in structure(model)]))]
    )


def test_it_is_rebuilt_from_json_with_all_that_counts_the_layers():
    model = Net()
    shorten(model, "stages.0.layers", [0, 2, 3])
    shorten(model, "stages.1.layers", [1])
    shorten(model, "stages.0.layers", [1, 2])
    replace_module(model, "stages.1.layers.0.linear", Zero())
    for made in (model, again(model)):
        assert [each.number for each in made.stages[0].layers] == [2, 3]
        assert [each.layer_idx for each in made.stages[0].layers] == [0, 1]
        assert (made.stages[0].depth, made.stages[1].depth) == (2, 1)
        assert made.config.depths == [2, 1]
        assert made.config.width == 4
        assert isinstance(made.stages[1].layers[0].linear, Zero)
        assert structure(made) == structure(model)
    shorten(model, "stages", [1])
    made = again(model)
    assert [each.number for each in made.stages[0].layers] == [1]
    assert (made.config.num_hidden_layers, made.config.layer_types) == (1, ["b"])


def test_a_stock_that_was_shortened_before_serves_too():
    stock = Net()
    shorten(stock, "stages.0.layers", [1, 2, 3])
    model = rebuild(stock, structure(stock))
    assert structure(model) == structure(stock)
    shorten(model, "stages.0.layers", [0, 2])
    assert stock_path(model, "stages.0.layers.1.linear") == "stages.0.layers.3.linear"
    made = rebuild(stock, structure(model))
    assert [each.number for each in made.stages[0].layers] == [1, 3]
    with pytest.raises(ModelError):
        rebuild(stock, [LayerShape("stages.0.layers", "ModuleList", {"kept": [0]}, {}), *structure(stock)])


def test_zero_is_zero_in_every_dtype_and_holds_nothing():
    assert not Zero().state_dict()
    x = torch.ones(2, 3, dtype=torch.float64)
    assert torch.equal(x + Zero()(x), x)
    assert Zero()(x).dtype == torch.float64


HOSTILE = [
    {"kept": [3, 1]}, {"kept": [1, 1]}, {"kept": [4]}, {"kept": [-1]}, {"kept": [True]}, {"kept": [0.0]},
    {"kept": [[0]]}, {"kept": 2}, {"kept": None}, {}, {"kept": [0], "forward": 1}, {"kept": ["0"]},
]  # fmt: skip


@pytest.mark.parametrize("attributes", HOSTILE)
def test_a_hostile_list_is_refused(attributes):
    with pytest.raises(ModelError, match=r"stages\.0\.layers"):
        rebuild(Net(), [LayerShape("stages.0.layers", "ModuleList", attributes, {}), *structure(Net())])


@pytest.mark.parametrize("path", ["", "stages.0", "stages.0.layers.0", "stages.9", "config", "__class__"])
def test_what_is_no_list_is_refused(path):
    with pytest.raises(ModelError, match="rebuild"):
        rebuild(Net(), [LayerShape(path, "ModuleList", {"kept": [0]}, {}), *structure(Net())])


def test_a_list_that_names_tensors_or_comes_twice_is_refused():
    shape = LayerShape("stages.1.layers", "ModuleList", {"kept": [0, 1, 2]}, {})
    assert rebuild(Net(), [shape, *structure(Net())])
    for shapes in ([shape, shape], [LayerShape(shape.module, shape.kind, shape.attributes, {"weight": [1]})]):
        with pytest.raises(ModelError):
            rebuild(Net(), [*shapes, *structure(Net())])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-1, 5) | st.booleans() | st.none() | st.floats(), max_size=5))
def test_a_fuzzed_list_is_taken_only_where_it_names_entries_in_order(kept):
    good = all(type(x) is int and 0 <= x < 4 for x in kept) and kept == sorted(set(kept))
    model = Net()
    try:
        shorten(model, "stages.0.layers", kept)
    except ModelError:
        assert not good
        assert structure(model) == structure(Net())
    else:
        assert good
        assert len(model.stages[0].layers) == len(kept)
