"""Sparsity that comes while a network trains: gradual, movement, in rounds, tickets; and Wanda's scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tinypress.errors import InputError, ModelError
from tinypress.facts import Compressed
from tinypress.prune import (
    calculate_sparsity,
    cubic_sparsity,
    find_ticket,
    gradual_pruning,
    keep_zeros,
    movement_pruning,
    prune_in_rounds,
    prune_model_by_magnitude,
    prune_model_by_wanda,
    sparsity_of_rounds,
)
from tinypress.prune.wanda import input_norms
from tinypress.task import Split
from tinypress.train import Checkpoint, Hook, Schedule, fit, supervised

CROSS = supervised(nn.functional.cross_entropy)
SCHEDULE = Schedule(epochs=6, learning_rate=0.01, batch_size=16)
STEPS = 6 * 6


def data(samples: int, seed: int) -> Split:
    x = torch.randn(samples, 8, generator=torch.Generator().manual_seed(seed))
    return Split((x,), torch.bucketize(x[:, :4].sum(1), torch.tensor([-1.0, 1.0])))


TRAIN, VALIDATION = data(96, 1), data(40, 2)


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, 3)).eval()


def same(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(x, theirs[name]) for name, x in one.state_dict().items())


def watching(seen: list[float]) -> object:
    return lambda model, total: Hook(after=lambda step: seen.append(calculate_sparsity(model)))


def test_the_cubic_schedule() -> None:
    values = [cubic_sparsity(step, 2, 12, 0.1, 0.9) for step in range(15)]
    assert values[:3] == pytest.approx([0.1, 0.1, 0.1])
    assert values[7] == pytest.approx(0.9 - 0.8 * 0.5**3)
    assert values[12:] == [0.9, 0.9, 0.9]
    assert values == sorted(values)


@pytest.mark.parametrize("allocation", [None, "uniform", "erk", "lamp"])
def test_gradual_sparsity_follows_the_equation_at_every_step(allocation: object) -> None:
    seen: list[float] = []
    hooks = [gradual_pruning(0.8, end=0.75, every=5, allocation=allocation), watching(seen)]  # type: ignore[arg-type]
    done = fit(network(), TRAIN, VALIDATION, CROSS, SCHEDULE, hooks=hooks)  # type: ignore[arg-type]
    last, now, total = 27, 0.0, 8 * 16 + 16 * 3
    for step in range(1, STEPS + 1):
        if step == last or (step < last and step % 5 == 0):
            now = cubic_sparsity(step, 0, last, 0.0, 0.8)
        assert seen[step - 1] * total == pytest.approx(
            round(now * total), abs=1 if allocation == "uniform" else 0
        )
    assert calculate_sparsity(done.model) == seen[-1]
    assert done.best_epoch >= 5  # earlier epochs are not sparse enough


def test_epochs_before_the_end_are_never_the_best_and_patience_waits() -> None:
    # validation is best at the beginning: the labels of validation are those of the untrained network
    start = network()
    x = VALIDATION.inputs[0]
    judge = Split((x,), start(x).argmax(1))
    hooks = [gradual_pruning(0.9, end=0.5, every=3)]
    done = fit(start, TRAIN, judge, CROSS, replace(SCHEDULE, patience=1), hooks=hooks)
    assert done.best_epoch >= 3
    assert calculate_sparsity(done.model) == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize("make", [gradual_pruning, movement_pruning])
def test_a_killed_training_goes_on_with_its_masks(make: object, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def killing(model: nn.Module, total: int) -> Hook:
        def after(step: int) -> None:
            if step == 13:
                raise Killed

        return Hook(after)

    hook = make(0.7)  # type: ignore[operator]
    whole = fit(network(), TRAIN, VALIDATION, CROSS, SCHEDULE, hooks=[hook]).model
    place = Checkpoint(tmp_path / "state", 0.0)
    with pytest.raises(Killed):
        fit(network(), TRAIN, VALIDATION, CROSS, SCHEDULE, hooks=[hook, killing], checkpoint=place)
    again = fit(network(), TRAIN, VALIDATION, CROSS, SCHEDULE, hooks=[hook], checkpoint=place).model
    assert same(again, whole)


def test_movement_is_that_of_the_equations() -> None:
    """Replayed with a dense copy, masks and scores of its own, by plain SGD."""
    layer = nn.Linear(8, 3)
    schedule = Schedule(2, 0.05, 16, optimizer="sgd", momentum=0.0, weight_decay=0.0, clip_norm=None)
    found = fit(layer, TRAIN, VALIDATION, CROSS, schedule, hooks=[movement_pruning(0.5, end=1.0)])
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    score, mask = torch.zeros_like(weight), torch.ones_like(weight, dtype=torch.bool)
    order, rate = torch.Generator().manual_seed(0), 0.05
    cosine = [0.05 * (1 + torch.cos(torch.tensor(torch.pi * t / 12))) / 2 for t in range(12)]
    came_back = False
    for step in range(1, 13):
        if step % 6 == 1:
            rows = torch.randperm(96, generator=order)
        part = rows[(step - 1) % 6 * 16 :][:16]
        used, own = (weight * mask).requires_grad_(), bias.clone().requires_grad_()
        loss = nn.functional.cross_entropy(
            nn.functional.linear(TRAIN.inputs[0][part], used, own), TRAIN.targets[part]
        )
        grad, of_bias = torch.autograd.grad(loss, (used, own))
        rate = float(cosine[step - 1])
        score -= grad * weight
        weight -= rate * grad * mask
        bias -= rate * of_bias
        count = round(cubic_sparsity(step, 0, 12, 0.0, 0.5) * 24)
        new = torch.ones(24, dtype=torch.bool)
        new[score.flatten().sort(stable=True).indices[:count]] = False
        came_back |= bool((new.view(3, 8) & ~mask).any())
        mask = new.view(3, 8)
    torch.testing.assert_close(found.model.get_parameter("weight"), weight * mask, rtol=1e-4, atol=1e-6)
    assert int((found.model.get_parameter("weight") == 0).sum()) == 12
    assert came_back  # a weight returned with the value it had


def test_movement_by_layer_has_exact_counts() -> None:
    done = fit(
        network(), TRAIN, VALIDATION, CROSS, SCHEDULE, hooks=[movement_pruning(0.5, scope="layer")]
    ).model
    assert [int((done.get_parameter(n) == 0).sum()) for n in ("0.weight", "3.weight")] == [64, 24]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: gradual_pruning(1.5),
        lambda: gradual_pruning(0.5, begin=0.5, end=0.5),
        lambda: gradual_pruning(0.5, initial=0.6),
        lambda: gradual_pruning(0.5, every=0),
        lambda: movement_pruning(0.5, rate=0.0),
        lambda: movement_pruning(0.5, end=2.0),
        lambda: sparsity_of_rounds(0.5, 0),
        lambda: fit(network(), TRAIN, VALIDATION, CROSS, SCHEDULE, taken=STEPS),
        lambda: find_ticket(network(), TRAIN, VALIDATION, CROSS, SCHEDULE, 0.5, rewind_to=STEPS),
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong: object) -> None:
    with pytest.raises(InputError):
        wrong()  # type: ignore[operator]


def test_rounds_remove_the_same_share_each_time() -> None:
    found = sparsity_of_rounds(0.875, 3)
    assert found == pytest.approx((0.5, 0.75, 0.875))
    seen = []

    def train(before: Compressed) -> Compressed:
        seen.append(calculate_sparsity(before.model))
        fitted = fit(
            before.model,
            TRAIN,
            VALIDATION,
            CROSS,
            replace(SCHEDULE, epochs=1),
            after_step=lambda model: keep_zeros(model, before.pruned),
        )
        return replace(before, model=fitted.model)

    done = prune_in_rounds(network(), 0.875, train)
    assert seen == pytest.approx([0.5, 0.75, 0.875], abs=0.003)
    assert calculate_sparsity(done.model) == seen[-1]
    one = prune_in_rounds(network(), 0.5, lambda before: before, rounds=1)
    assert same(one.model, prune_model_by_magnitude(network(), 0.5).model)


@pytest.mark.parametrize("back", [0, 7])
def test_a_ticket_is_trained_from_its_early_weights(back: int) -> None:
    early: dict[str, Tensor] = {}

    def catching(model: nn.Module, total: int) -> Hook:
        def after(step: int) -> None:
            if step == back:
                early.update({name: x.clone() for name, x in model.state_dict().items()})

        return Hook(after)

    if back == 0:
        early.update(network().state_dict())
    dense = fit(network(), TRAIN, VALIDATION, CROSS, SCHEDULE, hooks=[catching]).model
    done = find_ticket(network(), TRAIN, VALIDATION, CROSS, SCHEDULE, 0.6, rounds=1, rewind_to=back)
    pruned = prune_model_by_magnitude(dense, 0.6)
    ticket = network()
    ticket.load_state_dict(early)
    for name in pruned.pruned:
        ticket.get_parameter(name).detach()[pruned.model.get_parameter(name) == 0] = 0.0
    expected = fit(
        ticket,
        TRAIN,
        VALIDATION,
        CROSS,
        SCHEDULE,
        taken=back,
        after_step=lambda model: keep_zeros(model, pruned.pruned),
    )
    assert same(done.model, expected.model)
    assert expected.steps == STEPS - back
    assert calculate_sparsity(done.model) == pytest.approx(0.6, abs=0.003)


def test_steps_taken_are_left_out_with_their_data_and_rates() -> None:
    """With plain SGD nothing is remembered: the rest of a training is the training from there."""
    schedule = Schedule(2, 0.05, 16, optimizer="sgd", momentum=0.0)
    middle: list[nn.Module] = []

    def catching(model: nn.Module, total: int) -> Hook:
        def after(step: int) -> None:
            if step == 8:
                copy = network()
                copy.load_state_dict(model.state_dict())
                middle.append(copy)

        return Hook(after)

    whole = fit(network(), TRAIN, VALIDATION, CROSS, schedule, hooks=[catching])
    rest = fit(middle[0], TRAIN, VALIDATION, CROSS, schedule, taken=8)
    assert whole.best_epoch == rest.best_epoch == 2
    assert same(whole.model, rest.model)


def test_wandas_norms_are_those_of_what_a_weight_is_multiplied_with() -> None:
    conv = nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2)
    x = torch.randn(5, 4, 9)
    found = input_norms("test", nn.Sequential(conv), conv, (x,), 2)
    windows = nn.functional.pad(x, (1, 1)).unfold(2, 3, 2)  # [5, 4, places, 3]
    norms = windows.double().square().sum((0, 2)).sqrt()  # [4, 3]
    for output in range(6):
        torch.testing.assert_close(found[output], norms[2 * (output // 3) : 2 * (output // 3) + 2])
    linear = nn.Linear(4, 3)
    tokens = torch.randn(5, 7, 4)
    found = input_norms("test", nn.Sequential(linear), linear, (tokens,), 3)
    torch.testing.assert_close(found, tokens.double().square().sum((0, 1)).sqrt().expand(3, 4))


def test_wanda_by_hand_layer_after_layer() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
    x = torch.randn(20, 6) * torch.tensor([1, 9, 1, 0.1, 1, 1])
    done = prune_model_by_wanda(model, 0.5, (x,), batch_size=7)
    current = x
    for name in ("0", "2"):
        weight = model.get_parameter(f"{name}.weight").detach()
        score = weight.abs() * current.norm(dim=0)
        expected = weight.clone()
        for row, values in enumerate(score):
            count = round(0.5 * len(values))
            expected[row, values.sort().indices[:count]] = 0.0
        assert torch.equal(done.model.get_parameter(f"{name}.weight"), expected)
        bias = model.get_parameter(f"{name}.bias")
        current = torch.tanh(nn.functional.linear(current, expected, bias)).detach()
    assert done.pruned == {"0.weight", "2.weight"}
    by_pattern = prune_model_by_wanda(network(), 0.5, TRAIN.inputs, pattern="2:4").model
    groups = by_pattern.get_parameter("0.weight").view(-1, 4)
    assert bool(((groups != 0).sum(1) == 2).all())
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_wanda_says_what_it_leaves_alone_and_refuses_bad_data() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru, self.idle, self.head = nn.GRU(8, 6), nn.Linear(2, 2), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.gru(x)[0])
            return out

    done = prune_model_by_wanda(Net(), 0.5, TRAIN.inputs)
    assert {note.code for note in done.notes} == {"TP113"}
    assert done.pruned == {"head.weight"}
    with pytest.raises(ModelError, match="NaN or infinite"):
        prune_model_by_wanda(network(), 0.5, (torch.full((4, 8), torch.inf),))
    with pytest.raises(InputError, match="one output"):
        prune_model_by_wanda(network(), 0.5, TRAIN.inputs, pattern="4x1")
    with pytest.raises(InputError, match="sample"):
        prune_model_by_wanda(network(), 0.5, ())
