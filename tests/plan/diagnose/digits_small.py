"""Real digits at 7×7 pixels and a small network trained on them, in which faults can be planted that leave the float
network as it is."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor, nn

from tinypress.task import Split, Task, Training
from tinypress.tasks.digits import _splits
from tinypress.train.loop import fit
from tinypress.train.objective import supervised
from tinypress.train.schedule import Schedule


class Net(nn.Module):
    """[B, 49] -> [B, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(49, 48), nn.Linear(48, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.second(torch.relu(self.first(x)))))
        return out


def _small(split: Split) -> Split:
    return Split((nn.functional.avg_pool2d(split.inputs[0], 4).flatten(1),), split.targets)


@cache
def task() -> Task:
    """The sound task; trained once in a process."""
    train, validation, test = (_small(split) for split in _splits())
    torch.manual_seed(0)
    schedule = Schedule(epochs=8, batch_size=64, learning_rate=5e-3)
    model = fit(Net(), train, validation, supervised(nn.functional.cross_entropy), schedule).model
    return Task(
        name="small-digits",
        model=model.eval(),
        example_inputs=(train.inputs[0][:2],),
        train=train,
        validation=validation.take(slice(0, 400)),
        test=test.take(slice(0, 400)),
        metric="accuracy",
        loss=nn.functional.cross_entropy,
        tolerance=1.0,
        training=Training(max_epochs=4, recovery_epochs=2),
    )


def with_outlier_channel() -> Task:
    """Neuron 5 of the first layer is 400 times as large, and read with weights 400 times as small."""
    model = copy.deepcopy(task().model)
    with torch.no_grad():
        model.first.weight[5] *= 400
        model.first.bias[5] *= 400
        model.second.weight[:, 5] /= 400
    return replace(task(), model=model)


def with_sensitive_layer() -> Task:
    """Neuron 5 never fires, and the next layer has huge weights for it: in few bits nothing of the others is left."""
    model = copy.deepcopy(task().model)
    with torch.no_grad():
        model.first.weight[5] = 0
        model.first.bias[5] = -1
        model.second.weight[:, 5] = 500
    return replace(task(), model=model)


def with_raw_calibration_data() -> Task:
    """The training samples, from which calibration draws, were never brought to the scale that the network takes."""
    train = task().train
    assert train is not None
    return replace(task(), train=replace(train, inputs=(train.inputs[0] * 200 + 300,)))
