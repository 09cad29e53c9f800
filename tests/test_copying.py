"""Networks are copied as ``copy.deepcopy`` copies them: nothing is shared that was not, and what was still is."""

import copy

import pytest
import torch
from torch import nn

from tinypress.errors import ModelError
from tinypress.layers import copy_model


class Config:
    def __init__(self) -> None:
        self.sizes = [4, 6]
        self.names = {0: "a", 1: ["b"]}


class Odd(nn.Module):
    """Of everything that modules hold: a config that two of them know, a layer in a list, tied weights, a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.config = Config()
        self.a, self.b, self.lstm = nn.Linear(4, 4), nn.Linear(4, 4), nn.LSTM(4, 4)
        self.b.weight = self.a.weight
        self.a.bias.requires_grad_(False)
        self.inner = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2))
        self.inner.config = self.config
        self.unregistered = [self.a, {"b": self.b}]
        self.register_buffer("mask", torch.ones(3), persistent=False)
        self.a.register_forward_hook(print)


class Own(nn.Linear):
    """Says itself how it is copied."""

    def __deepcopy__(self, memo):
        made = Own(2, 2)
        memo[id(self)] = made
        made.copied = True
        return made


def test_what_is_shared_inside_stays_shared_and_nothing_else_is():
    model = Odd()
    made = copy_model(model)
    due = copy.deepcopy(model)
    assert [name for name, _ in made.named_modules()] == [name for name, _ in due.named_modules()]
    for (name, one), (other, source) in zip(
        [*made.named_parameters(), *made.named_buffers()],
        [*model.named_parameters(), *model.named_buffers()],
        strict=True,
    ):
        assert name == other
        assert one is not source
        assert torch.equal(one, source)
        assert one.requires_grad == source.requires_grad
    assert made.a.weight is made.b.weight
    assert made.unregistered[0] is made.a
    assert made.unregistered[1]["b"] is made.b
    assert made.config is made.inner.config
    assert made.config is not model.config
    assert made.config.sizes == [4, 6]
    assert made.config.sizes is not model.config.sizes
    assert made.config.names[1] is not model.config.names[1]
    assert made.lstm._flat_weights[0] is made.lstm.weight_ih_l0
    assert made.a._forward_hooks is not model.a._forward_hooks
    assert list(made.a._forward_hooks.values()) == [print]
    assert made.state_dict().keys() == model.state_dict().keys()


def test_shared_parameters_and_tensors_in_place_of_others():
    model = Odd()
    assert copy_model(model, share=True).a.weight is model.a.weight
    assert copy_model(model, share=True).mask is not model.mask
    other = nn.Parameter(torch.zeros(2, 4))
    made = copy_model(model, instead={model.a.weight: other})
    assert made.a.weight is made.b.weight is other


def test_a_module_that_says_how_it_is_copied_is_asked():
    assert copy_model(nn.Sequential(Own(2, 2)))[0].copied


def test_a_weight_that_hangs_on_a_graph_is_refused():
    model = nn.Linear(2, 2)
    model.scaled = model.weight * 2
    with pytest.raises(ModelError, match="cannot be copied"):
        copy_model(model)


class Views(nn.Module):
    """Buffers that are views of one memory, in either order, and buffers of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("whole", torch.arange(6.0))
        self.register_buffer("head", self.whole[:2])
        self.register_buffer("same", self.whole.view(2, 3))
        self.register_buffer("last", torch.arange(8)[4:])
        self.register_buffer("turned", torch.arange(6.0).reshape(2, 3).T)
        self.register_buffer("wide", torch.ones(1).expand(4))
        self.register_buffer("none", torch.zeros(0))
        self.register_buffer("scalar", torch.tensor(3))
        self.register_buffer("learned", torch.ones(2, requires_grad=True))
        self.register_buffer("imaginary", torch.ones(2, dtype=torch.complex64).conj())
        self.scalar.note = "kept"


def test_views_of_one_memory_stay_so_and_are_no_views_of_the_original():
    model = Views()
    made, due = copy_model(model), copy.deepcopy(model)
    for (name, one), other, source in zip(made.named_buffers(), due.buffers(), model.buffers(), strict=True):
        assert torch.equal(one, source), name
        assert (one.stride(), one.storage_offset()) == (other.stride(), other.storage_offset()), name
        assert one.requires_grad == other.requires_grad
        assert one.is_conj() == other.is_conj()
        assert vars(one) == vars(other)
        assert one.numel() == 0 or one.data_ptr() != source.data_ptr()
    made.whole[0] = 7
    assert made.head[0] == made.same[0, 0] == 7
    assert model.whole[0] == 0


def test_what_a_dictionary_knows_beside_its_entries_and_numbers_of_four_bits_are_kept():
    model = nn.Linear(2, 2)
    model.best = model.state_dict()
    model.register_buffer("few", torch.zeros(2, dtype=torch.uint8).view(torch.uint4))
    model.register_buffer("noted", torch.zeros(2))
    model.noted.grad = torch.ones(2)
    made = copy_model(model)
    assert made.best._metadata == model.best._metadata
    assert made.few.dtype == torch.uint4
    assert torch.equal(made.noted.grad, torch.ones(2))
