"""Varied copies of training samples: which rows they are, that a seed repeats them, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tinypress.errors import DataError
from tinypress.task import Split
from tinypress.tasks.digits import moved
from tinypress.train.augmented import augmented

SPLIT = Split((torch.randn(6, 3), torch.arange(12).reshape(6, 2)), torch.arange(6), torch.arange(6) // 2)


def noisy(inputs: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, ...]:
    x, words = inputs
    return x + torch.randn(x.shape, generator=generator), words


def test_the_samples_come_first_and_each_copy_keeps_its_label_and_group() -> None:
    made = augmented(SPLIT, noisy, 3, seed=0)
    assert len(made) == 18
    assert torch.equal(made.inputs[0][:6], SPLIT.inputs[0])
    assert torch.equal(made.inputs[1], SPLIT.inputs[1].repeat(3, 1))
    assert torch.equal(made.targets, SPLIT.targets.repeat(3))
    assert made.groups is not None
    assert SPLIT.groups is not None
    assert torch.equal(made.groups, SPLIT.groups.repeat(3))
    assert not torch.equal(made.inputs[0][6:12], made.inputs[0][12:])


def test_a_seed_makes_the_same_copies_and_another_makes_others() -> None:
    one, again, other = (augmented(SPLIT, noisy, 2, seed).inputs[0] for seed in (4, 4, 5))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_one_copy_is_the_split_and_what_is_given_cannot_be_written_into() -> None:
    def clearing(inputs: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, ...]:
        return tuple(x.zero_() for x in inputs)

    before = SPLIT.inputs[0].clone()
    assert torch.equal(augmented(SPLIT, clearing, 1, 0).inputs[0], before)
    made = augmented(SPLIT, clearing, 2, 0)
    assert torch.equal(made.inputs[0][:6], before)
    assert torch.equal(SPLIT.inputs[0], before)


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (lambda inputs, generator: inputs[0], "returned a Tensor"),
        (lambda inputs, generator: inputs[:1], "returned 1 inputs of 2"),
        (lambda inputs, generator: (inputs[0][:, :2], inputs[1]), "input 0 was"),
        (lambda inputs, generator: (inputs[0].double(), inputs[1]), "input 0 was"),
        (lambda inputs, generator: (inputs[0] / 0, inputs[1]), "holds NaN or infinity"),
        (lambda inputs, generator: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_what_is_no_variation_is_refused(function: Callable[..., tuple[Tensor, ...]], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        augmented(SPLIT, function, 2, 0)


def test_digits_move_a_little_and_stay_in_their_picture() -> None:
    dot = torch.zeros(200, 1, 28, 28)
    dot[:, :, 13:15, 13:15] = 1
    (made,) = moved((dot,), torch.Generator().manual_seed(0))
    where = torch.arange(28.0)
    for dim in (2, 3):
        centre = (made.sum(dim=5 - dim).squeeze(1) * where).sum(1) / made.sum((1, 2, 3)) - 13.5
        assert float(centre.abs().max()) <= 2
        assert float(centre.std()) > 0.5
    assert float(made.sum((1, 2, 3)).min()) > 2
    assert float(made.min()) >= 0
    assert float(made.max()) <= 1 + 1e-6
