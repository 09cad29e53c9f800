"""The distillation loss, against its equation summed by hand in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tinypress.distill import DistillationLoss, MatchingLoss, ask_teacher
from tinypress.errors import DataError, InputError


def by_hand(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, alpha: float) -> float:
    """alpha T² KL(teacher ‖ student) + (1 - alpha) CE, the mean over samples."""
    total = 0.0
    for s, t, label in zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True):
        p, q = shares(t, temperature), shares(s, temperature)
        soft = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        total += alpha * temperature**2 * soft - (1 - alpha) * math.log(shares(s, 1.0)[label])
    return total / len(labels)


def shares(logits: list[float], temperature: float) -> list[float]:
    powers = [math.exp(x / temperature) for x in logits]
    return [x / sum(powers) for x in powers]


def logits(samples: int = 6, classes: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        2 * torch.randn(samples, classes, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    return student, teacher, torch.arange(samples) % classes


@pytest.mark.parametrize(("temperature", "alpha"), [(1.0, 0.5), (4.0, 0.7), (20.0, 0.9), (0.5, 0.2)])
def test_the_equation(temperature: float, alpha: float) -> None:
    found = DistillationLoss(temperature, alpha)(*logits())
    assert float(found) == pytest.approx(by_hand(*logits(), temperature, alpha), rel=1e-12)


def test_alpha_is_the_weight_of_the_teacher() -> None:
    student, teacher, labels = logits()
    alone = nn.functional.cross_entropy(student, labels)
    torch.testing.assert_close(DistillationLoss(4.0, 0.0)(student, teacher, labels), alone)
    of_teacher = DistillationLoss(4.0, 1.0)
    assert of_teacher(student, teacher, labels) == of_teacher(student, teacher, labels.flip(0))


def test_equal_logits_cost_nothing() -> None:
    student, _, labels = logits()
    assert float(DistillationLoss(3.0, 1.0)(student, student, labels)) == 0.0


def test_the_gradient_of_the_soft_part_does_not_fade_with_the_temperature() -> None:
    """For T much larger than logits of mean 0 it is (student - teacher) / C (Hinton et al. 2015, eq. 4)."""
    student, teacher, labels = logits(samples=1)
    student, teacher = student - student.mean(), teacher - teacher.mean()
    student.requires_grad_()
    DistillationLoss(1e4, 1.0)(student, teacher, labels).backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    torch.testing.assert_close(student.grad, (student - teacher).detach() / 5, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf, True])
def test_a_temperature_that_means_nothing_is_refused(temperature: float) -> None:
    with pytest.raises(InputError, match="temperature"):
        DistillationLoss(temperature)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan, True])
def test_alpha_is_a_share(alpha: float) -> None:
    with pytest.raises(InputError, match="alpha"):
        DistillationLoss(alpha=alpha)
    with pytest.raises(InputError, match="alpha"):
        MatchingLoss(alpha, nn.functional.mse_loss)


def test_shapes_and_labels_are_checked() -> None:
    student, teacher, labels = logits()
    with pytest.raises(InputError, match="differ in shape"):
        DistillationLoss()(student, teacher[:, 1:], labels)
    with pytest.raises(DataError, match=r"0\.\.4"):
        DistillationLoss()(student, teacher, labels + 1)
    with pytest.raises(InputError, match="differ in shape"):
        MatchingLoss(0.5, nn.functional.mse_loss)(student, teacher[1:], teacher)


def test_outputs_that_are_no_logits_are_matched() -> None:
    student, teacher, _ = logits()
    targets = torch.zeros_like(student)
    found = MatchingLoss(0.25, nn.functional.l1_loss)(student, teacher, targets)
    expected = 0.25 * ((student - teacher) ** 2).mean() + 0.75 * student.abs().mean()
    torch.testing.assert_close(found, expected)


def test_the_teacher_is_asked_in_evaluation_mode_and_left_as_it_was() -> None:
    teacher = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5)).train()
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    (found,) = ask_teacher(teacher, (x,), batch_size=3)
    torch.testing.assert_close(found, teacher[0](x).detach())
    assert teacher.training
    assert not found.requires_grad
