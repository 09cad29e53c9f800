"""``watch``: which physiotherapy exercise is being done, from 2.56 seconds of smartwatch motion.

Recordings of 10 subjects (Burns et al. 2018, arXiv:1802.01489) with 6 axes at 50 Hz: acceleration in g and
rotation in rad/s. Subjects are split, so that nobody is in two of train, validation and test.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tinypress.task import Split, Task, Training
from tinypress.tasks.admit import read_object_array
from tinypress.tasks.data_files import read_package_file
from tinypress.tasks.trained import trained
from tinypress.train.loop import Progress, silent

WINDOW = 128
HOP = 64
TRAIN_SUBJECTS = (1, 2, 3, 4, 5)
VALIDATION_SUBJECTS = (6, 7)
TEST_SUBJECTS = (8, 9, 10)
EXERCISES = (
    "pendulum",
    "abduction",
    "forward elevation",
    "internal rotation",
    "external rotation",
    "trapezius extension",
    "upright row",
)
_SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"


class WatchNet(nn.Module):
    """A 1-D CNN: [B, 6, 128] motion to [B, 7] logits."""

    def __init__(self, width: int = 64, classes: int = len(EXERCISES)) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(6, width, 5, padding=2)
        self.norm1 = nn.BatchNorm1d(width)
        self.conv2 = nn.Conv1d(width, 2 * width, 5, padding=2)
        self.norm2 = nn.BatchNorm1d(2 * width)
        self.conv3 = nn.Conv1d(2 * width, 2 * width, 5, padding=2)
        self.norm3 = nn.BatchNorm1d(2 * width)
        self.pool1 = nn.MaxPool1d(4)
        self.pool2 = nn.MaxPool1d(4)
        self.average = nn.AdaptiveAvgPool1d(1)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(torch.relu(self.norm1(self.conv1(x))))
        x = self.pool2(torch.relu(self.norm2(self.conv2(x))))
        x = self.average(torch.relu(self.norm3(self.conv3(x))))
        logits: Tensor = self.head(self.dropout(torch.flatten(x, 1)))
        return logits


def load(seed: int = 0, progress: Progress = silent) -> Task:
    """The task with its trained network; training takes seconds and is cached."""
    train, validation, test = splits()
    training = Training(max_epochs=24, patience=6, recovery_epochs=4, batch_size=64)

    def build() -> nn.Module:
        return WatchNet()

    model = trained("watch", build, train, validation, nn.functional.cross_entropy, training, seed, progress)
    return Task(
        name="watch",
        about=(
            f"Seven shoulder exercises from smartwatch motion; 10 subjects: {len(TRAIN_SUBJECTS)} train, "
            f"{len(VALIDATION_SUBJECTS)} validation, {len(TEST_SUBJECTS)} test"
        ),
        model=model,
        example_inputs=(train.inputs[0][:2],),
        train=train,
        validation=validation,
        test=test,
        loss=nn.functional.cross_entropy,
        metric="accuracy",
        build=build,
        tolerance=3.0,
        training=training,
        classes=EXERCISES,
        augment=paced,
    )


def paced(inputs: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, ...]:
    """Motion [N, 6, 128] up to 10 % faster or slower, and as much wider or smaller."""
    (motion,) = inputs
    pace, width = 1 + 0.1 * (2 * torch.rand((2, len(motion), 1, 1), generator=generator) - 1)
    where = torch.linspace(-1, 1, motion.shape[-1]) * pace.squeeze(1)  # [N, 128], of the window's half length
    grid = torch.stack([where, torch.zeros_like(where)], dim=-1)[:, None]
    paced = nn.functional.grid_sample(motion[:, :, None], grid, padding_mode="reflection", align_corners=True)
    return (width * paced.squeeze(2),)


def splits() -> tuple[Split, Split, Split]:
    """Train, validation and test, scaled by the moments of train."""
    data = read_object_array(read_package_file("seglearn", "data/watch_dataset.npy", _SHA256))
    recordings = [np.asarray(x, dtype=np.float32) for x in data["X"]]
    subjects = np.asarray(data["subject"])
    seen = np.concatenate([x for x, s in zip(recordings, subjects, strict=True) if s in TRAIN_SUBJECTS])
    mean, spread = seen.mean(axis=0), seen.std(axis=0)
    return (
        _windows(recordings, data["y"], subjects, TRAIN_SUBJECTS, mean, spread),
        _windows(recordings, data["y"], subjects, VALIDATION_SUBJECTS, mean, spread),
        _windows(recordings, data["y"], subjects, TEST_SUBJECTS, mean, spread),
    )


def _windows(
    recordings: list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]],
    labels: np.ndarray[tuple[int], np.dtype[np.int64]],
    subjects: np.ndarray[tuple[int], np.dtype[np.int64]],
    chosen: tuple[int, ...],
    mean: np.ndarray[tuple[int], np.dtype[np.float32]],
    spread: np.ndarray[tuple[int], np.dtype[np.float32]],
) -> Split:
    windows, targets, groups = [], [], []
    for recording, (motion, label, subject) in enumerate(zip(recordings, labels, subjects, strict=True)):
        if subject not in chosen:
            continue
        scaled = ((motion - mean) / spread).T
        for start in range(0, scaled.shape[1] - WINDOW + 1, HOP):
            windows.append(scaled[:, start : start + WINDOW])
            targets.append(int(label))
            groups.append(recording)
    return Split(
        (torch.from_numpy(np.stack(windows)),),
        torch.tensor(targets),
        torch.tensor(groups),
    )
