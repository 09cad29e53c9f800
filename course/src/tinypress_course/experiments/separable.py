"""MobileNet's idea: a convolution split into one over places and one over channels.

Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications" (2017), section 3.1:
a depthwise-separable convolution costs 1/out + 1/kernel of the multiplications of a full one (in one dimension).
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from torch import nn

from tinypress import Task
from tinypress_course.experiments.training import Trained, train_and_measure


def separable(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Depthwise, then pointwise; each followed by batch norm, as in the paper's figure 3."""
    return nn.Sequential(
        nn.Conv1d(inputs, inputs, kernel, padding=kernel // 2, groups=inputs, bias=False),
        nn.BatchNorm1d(inputs),
        nn.ReLU(),
        nn.Conv1d(inputs, outputs, 1, bias=False),
        nn.BatchNorm1d(outputs),
        nn.ReLU(),
    )


def full(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """One convolution over places and channels at once."""
    return nn.Sequential(
        nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm1d(outputs),
        nn.ReLU(),
    )


def full_against_separable(task: Task, folder: Path, epochs: int = 8) -> dict[str, Trained]:
    """The watch network with full and with depthwise-separable convolutions, trained alike and measured."""
    channels, classes = task.example_inputs[0].shape[1], len(task.classes)
    measured = {}
    for name, block in (("full", full), ("separable", separable)):
        layers: list[tuple[str, nn.Module]] = [
            ("first", full(channels, 64, 5)),
            ("pool1", nn.MaxPool1d(4)),
            ("second", block(64, 128, 5)),
            ("pool2", nn.MaxPool1d(4)),
            ("third", block(128, 128, 5)),
            ("average", nn.AdaptiveAvgPool1d(1)),
            ("flatten", nn.Flatten()),
            ("head", nn.Linear(128, classes)),
        ]
        measured[name] = train_and_measure(task, nn.Sequential(OrderedDict(layers)), folder / name, epochs)
    return measured
