"""The training loop: repeatable, keeps its best epoch and what a hook keeps, and says where it diverged."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tinypress.errors import DataError, InputError, ModelError
from tinypress.task import Split
from tinypress.train.loop import Schedule, fit, mean_objective, supervised

FAST = Schedule(epochs=4, learning_rate=0.05, batch_size=4)
SQUARES = supervised(nn.functional.mse_loss)


def data(samples: int = 13, offset: float = 0.0) -> Split:
    x = torch.randn(samples, 3, generator=torch.Generator().manual_seed(0))
    return Split((x,), x.sum(1, keepdim=True) + offset)


def network(*more: nn.Module) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), *more, nn.Linear(8, 1))


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_equal_arguments_give_equal_bits_whatever_the_callers_random_state() -> None:
    model = network(nn.Dropout(0.3))
    torch.manual_seed(1)
    one = fit(model, data(), data(), SQUARES, FAST).model
    torch.manual_seed(2)
    state = torch.get_rng_state()
    other = fit(model, data(), data(), SQUARES, FAST).model
    assert same(one, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert not same(one, fit(model, data(), data(), SQUARES, replace(FAST, seed=1)).model)


def test_the_network_given_is_not_changed_and_the_result_is_in_evaluation_mode() -> None:
    model = network().train()
    before = copy.deepcopy(model)
    fitted = fit(model, data(), data(), SQUARES, FAST)
    assert same(model, before)
    assert model.training
    assert not fitted.model.training
    assert mean_objective(fitted.model, data(), SQUARES) < mean_objective(before, data(), SQUARES)


def test_the_weights_of_the_best_epoch_on_validation_are_kept() -> None:
    seen: list[float] = []

    def watched(model: nn.Module, inputs: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        loss = nn.functional.mse_loss(model(*inputs), targets)
        if not model.training:
            seen.append(float(loss))
        return loss

    model = nn.Linear(3, 1)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    # training leads on to an offset of 3, and passes that of validation, 1, on its way
    fitted = fit(model, data(offset=3.0), data(offset=1.0), watched, Schedule(40, 0.05, 4))
    best = seen.index(min(seen)) + 1
    assert 1 < best < 40
    assert fitted.best_epoch == best
    assert mean_objective(fitted.model, data(offset=1.0), SQUARES) == min(seen)


def test_patience_ends_it_that_many_epochs_after_the_best() -> None:
    schedule = Schedule(60, 0.05, 4, patience=3)
    fitted = fit(nn.Linear(3, 1), data(offset=9.0), data(offset=1.0), SQUARES, schedule)
    assert fitted.epochs == fitted.best_epoch + 3 < 60
    assert fitted.steps == 3 * fitted.epochs  # 13 samples by 4: the last batch of one is left out


def test_what_the_hook_keeps_holds_after_every_step() -> None:
    gone = torch.rand(8, 3, generator=torch.Generator().manual_seed(0)) < 0.5
    calls = []

    def keep(model: nn.Module) -> Callable[[], None]:
        weight = model.get_parameter("0.weight")

        def apply() -> None:
            calls.append(bool((weight[gone] != 0).any()))  # the optimizer has just moved them
            weight.detach()[gone] = 0.0

        return apply

    model = network()
    model.get_parameter("0.weight").detach()[gone] = 0.0
    fitted = fit(model, data(), data(), SQUARES, FAST, after_step=keep)
    weight = fitted.model.get_parameter("0.weight")
    assert bool((weight[gone] == 0).all())
    assert bool((weight[~gone] != model.get_parameter("0.weight")[~gone]).all())
    assert len(calls) == fitted.steps == 12
    assert all(calls)


def test_the_mean_is_over_samples_and_in_evaluation_mode() -> None:
    split = data(samples=7)
    model = network(nn.Dropout(0.9)).train()
    whole = nn.functional.mse_loss(copy.deepcopy(model).eval()(*split.inputs), split.targets).item()
    assert mean_objective(model, split, SQUARES, batch_size=4) == pytest.approx(whole, rel=1e-6)


def test_batch_norm_never_meets_a_batch_of_one() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    assert fit(model, data(samples=9), data(), SQUARES, FAST).steps == 2 * 4


def test_a_loss_that_diverges_names_its_step() -> None:
    def late(model: nn.Module, inputs: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        late_calls.append(1)
        loss = nn.functional.mse_loss(model(*inputs), targets)
        return loss * float("nan") if len(late_calls) == 6 else loss  # 3 steps and a validation before

    late_calls: list[int] = []
    with pytest.raises(ModelError, match="the loss is nan at step 2 of epoch 2"):
        fit(network(), data(), data(), late, FAST)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch_size": 0}, {"learning_rate": 0.0}])
def test_schedules_that_mean_nothing_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="positive"):
        fit(network(), data(), data(), SQUARES, replace(FAST, **wrong))


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(ModelError, match="requires a gradient"):
        fit(network().requires_grad_(False), data(), data(), SQUARES, FAST)
    with pytest.raises(DataError, match="one sample"):
        fit(network(), data(samples=1), data(), SQUARES, FAST)
