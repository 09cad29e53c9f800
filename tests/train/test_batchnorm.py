"""Batch norm's moments, estimated again: those of the data, exactly."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tinypress.errors import InputError
from tinypress.task import Split
from tinypress.train import reestimate_batch_norm


def images(samples: int) -> Split:
    x = 3 * torch.randn(samples, 2, 4, 5, generator=torch.Generator().manual_seed(0)) + 7
    return Split((x,), torch.zeros(samples))


@pytest.mark.parametrize(("samples", "size"), [(16, 4), (17, 4), (9, 64), (5, 2)])
def test_the_moments_are_those_of_all_values_together(samples: int, size: int) -> None:
    model = nn.Sequential(nn.BatchNorm2d(2), nn.Dropout(0.5))
    split = images(samples)
    done = reestimate_batch_norm(model, split, batch_size=size)
    norm = done.model.get_submodule("0")
    values = split.inputs[0].transpose(0, 1).flatten(1)
    torch.testing.assert_close(norm.running_mean, values.mean(1))
    torch.testing.assert_close(norm.running_var, values.var(1))
    assert done.changes[0].layer == "0"
    assert not done.model.training
    assert not norm.training


def test_a_later_batch_norm_sees_what_it_sees_in_training() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
    )
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    done = reestimate_batch_norm(model, images(8), batch_size=8).model
    assert all(torch.equal(x, model.state_dict()[name]) for name, x in before.items())
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        hidden = copy.deepcopy(model).train()[:4](images(8).inputs[0]).transpose(0, 1).flatten(1)
        torch.testing.assert_close(done.get_submodule("4").running_mean, hidden.mean(1))
        torch.testing.assert_close(done.get_submodule("4").running_var, hidden.var(1))
    for name, x in model.named_parameters():
        assert torch.equal(x, done.get_parameter(name))


def test_without_batch_norm_a_note_says_so() -> None:
    done = reestimate_batch_norm(nn.Linear(2, 2), Split((torch.zeros(4, 2),), torch.zeros(4)))
    assert [note.code for note in done.notes] == ["TP611"]
    with pytest.raises(InputError, match="two samples"):
        reestimate_batch_norm(nn.BatchNorm2d(2), images(4), batch_size=1)
