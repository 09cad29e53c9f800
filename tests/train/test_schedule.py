"""Learning rates and optimizers: the old bits, the equations, what is refused."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from tinypress.errors import InputError
from tinypress.task import Split
from tinypress.train import Schedule, fit, supervised, with_time_left
from tinypress.train.schedule import first_rate, next_rate

SQUARES = supervised(nn.functional.mse_loss)


def data(samples: int = 13) -> Split:
    x = torch.randn(samples, 3, generator=torch.Generator().manual_seed(0))
    return Split((x,), x.sum(1, keepdim=True))


def rates(schedule: Schedule, total: int) -> list[float]:
    found = [first_rate(schedule)]
    for taken in range(1, total):
        found.append(next_rate(schedule, found[-1], taken, total))
    return found


@pytest.mark.parametrize("total", [1, 2, 7, 1000])
def test_the_cosine_has_the_bits_of_torch(total: int) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.05)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    theirs = []
    for _ in range(total):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        cosine.step()
    assert rates(Schedule(1, 0.05), total) == theirs


def test_warm_up_is_linear_and_then_the_cosine_ends_at_zero() -> None:
    schedule = Schedule(1, 0.4, warmup_steps=4)
    found = rates(schedule, 24)
    assert found[:4] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    expected = [0.2 * (1 + math.cos(math.pi * u / 20)) for u in range(20)]
    assert found[4:] == pytest.approx(expected)
    assert next_rate(schedule, found[-1], 24, 24) == pytest.approx(0.0, abs=1e-12)
    assert rates(schedule, 3) == pytest.approx([0.1, 0.2, 0.3])


def replayed(model: nn.Module, schedule: Schedule, optimizer: torch.optim.Optimizer) -> None:
    """The training written out again, for a schedule whose last epoch is its best."""
    split, size = data(), schedule.batch_size
    batches = 3  # 13 samples by 4, without the last one
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, schedule.epochs * batches)
    order = torch.Generator().manual_seed(schedule.seed)
    for _ in range(schedule.epochs):
        rows = torch.randperm(13, generator=order)
        for batch in range(batches):
            part = rows[batch * size : (batch + 1) * size]
            optimizer.zero_grad()
            nn.functional.mse_loss(model(split.inputs[0][part]), split.targets[part]).backward()
            if schedule.clip_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), schedule.clip_norm)
            optimizer.step()
            cosine.step()


@pytest.mark.parametrize("clip", [5.0, 0.01, None])
@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_the_loop_has_the_bits_of_torch(kind: Any, clip: float | None) -> None:
    schedule = Schedule(5, 0.01, 4, optimizer=kind, clip_norm=clip)
    model = nn.Linear(3, 1)
    mine = fit(model, data(), data(), SQUARES, schedule)
    assert mine.best_epoch == 5
    theirs = copy.deepcopy(model)
    if kind == "adamw":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(theirs.parameters(), 0.01, weight_decay=1e-4)
    else:
        optimizer = torch.optim.SGD(theirs.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)
    replayed(theirs, schedule, optimizer)
    assert torch.equal(mine.model.get_parameter("weight"), theirs.weight)
    assert torch.equal(mine.model.get_parameter("bias"), theirs.bias)


def test_bfloat16_computes_under_autocast_and_keeps_float32_weights() -> None:
    seen = []

    class Spy(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = super().forward(x)
            seen.append((self.training, out.dtype))
            return out

    fitted = fit(Spy(3, 1), data(), data(), SQUARES, Schedule(2, 0.01, 4, precision="bfloat16"))
    assert {dtype for training, dtype in seen if training} == {torch.bfloat16}
    assert {dtype for training, dtype in seen if not training} == {torch.float32}  # judged as it ships
    assert all(p.dtype == torch.float32 for p in fitted.model.parameters())


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("optimizer", "adam"),
        ("precision", "float16"),
        ("momentum", 1.0),
        ("warmup_steps", -1),
        ("clip_norm", 0.0),
    ],
)
def test_settings_that_mean_nothing_are_refused(setting: str, value: object) -> None:
    wrong = replace(Schedule(1, 0.1), **{setting: value})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=setting.split("_")[0]):
        fit(nn.Linear(3, 1), data(), data(), SQUARES, wrong)


def test_the_time_left_is_that_at_the_speed_so_far() -> None:
    now = iter([100.0, 110.0, 130.0, 131.0, 9000.0])
    lines: list[str] = []
    progress = with_time_left(lines.append, clock=lambda: next(now))
    progress("a", 4, 10)  # four steps that an earlier process took
    progress("a", 5, 10)
    progress("a", 10, 10)
    progress("b", 1, 1000)
    progress("b", 2, 1000)
    assert lines == [
        "a: 4/10",
        "a: 5/10, 50 s left",
        "a: 10/10",
        "b: 1/1000",
        "b: 2/1000, 2458 h 41 min left",
    ]
