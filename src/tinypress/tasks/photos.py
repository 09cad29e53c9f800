"""The photographs that packages carry, and 224×224 crops of them: few, so that whole photos are split.

Legend: N crops of P photos.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tinypress.tasks.data_files import read_package_file
from tinypress.tasks.pretrained import REQUIREMENTS

SIDE = 224
_MARGIN = 0.875  # of the shorter side, that the centre crop of ImageNet's usual test keeps
_LEAST_SIDE = 0.6  # of the shorter side, that a crop at random keeps

Photo = tuple[str, str, str]
"""Package, path in it, SHA-256 of the file."""

TRAIN: tuple[Photo, ...] = (
    ("skimage", "data/astronaut.png", "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5"),
    ("skimage", "data/camera.png", "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a"),
    ("skimage", "data/coffee.png", "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7"),
    ("skimage", "data/coins.png", "f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba"),
    ("skimage", "data/grass.png", "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89"),
    (
        "skimage",
        "data/hubble_deep_field.jpg",
        "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4",
    ),
    ("skimage", "data/ihc.png", "f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef"),
    (
        "skimage",
        "data/motorcycle_left.png",
        "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179",
    ),
    ("skimage", "data/rocket.jpg", "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c"),
    (
        "sklearn",
        "datasets/images/china.jpg",
        "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29",
    ),
)
VALIDATION: tuple[Photo, ...] = (
    ("skimage", "data/brick.png", "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf"),
    ("skimage", "data/chelsea.png", "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb"),
    ("skimage", "data/gravel.png", "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12"),
    ("skimage", "data/moon.png", "78739619d11f7eb9c165bb5d2efd4772cee557812ec847532dbb1d92ef71f577"),
    ("skimage", "data/retina.jpg", "38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6"),
    (
        "sklearn",
        "datasets/images/flower.jpg",
        "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638",
    ),
)

# of ImageNet; the class stands at the end of the name
TEST: tuple[Photo, ...] = (
    (
        "foolbox",
        "data/imagenet_00_243.jpg",
        "28b7b933c8028c6e20bf74a86a709eda42ce99f14c8742cb657cb386f08a4c9d",
    ),
    (
        "foolbox",
        "data/imagenet_01_559.jpg",
        "5f03b0c74dff01b5b4195d0beabcae2a625a406e6917957ab9c455b5b7dea6d6",
    ),
    (
        "foolbox",
        "data/imagenet_02_438.jpg",
        "ccef0734c1a65549c6cb5adb0f5d9b1c0b2e2104aba50a9e5f9202dc6d4532ed",
    ),
    (
        "foolbox",
        "data/imagenet_03_990.jpg",
        "c7f0b2f1e9ee39d8f900759e8983afa2e4a2d7de090060e8bb947f6e90cace5f",
    ),
    (
        "foolbox",
        "data/imagenet_04_949.jpg",
        "a7f62f3c1d214de4718c7253871ab38209283249e131faf65b8f2b7fdc970669",
    ),
    (
        "foolbox",
        "data/imagenet_05_853.jpg",
        "8a449436c61da867528b1f4efaf8ae832ab9c9201705eae0d3af1353fbdac131",
    ),
    (
        "foolbox",
        "data/imagenet_06_609.jpg",
        "fb061102a4e58b3ed942bb2a4f9542e1e1acdc8f225ef95498e93889290e192f",
    ),
    (
        "foolbox",
        "data/imagenet_07_609.jpg",
        "2c297ad1e5c4804a647e9b34bc02ee2fc348b05a4d49050d170fb61c948efa5c",
    ),
    (
        "foolbox",
        "data/imagenet_08_915.jpg",
        "c6a3411a3987799f0de45adc142f00ca412c3e14073c635e2adfae1f3913180c",
    ),
    (
        "foolbox",
        "data/imagenet_09_455.jpg",
        "ace3716b60ac5843269b270e17020e4f8138440cd30ef3487f7d6e54da9745a4",
    ),
    (
        "foolbox",
        "data/imagenet_10_541.jpg",
        "f325c71d9f4290ee45e99bd7ad42f4bffe513b1450ad21e7bd61c7cb137395d9",
    ),
    (
        "foolbox",
        "data/imagenet_11_630.jpg",
        "892dff58fc528fe63d2df0c783aa3eca2342637798578ce01763fbc0553eda01",
    ),
    (
        "foolbox",
        "data/imagenet_12_741.jpg",
        "6c256e17545b25bbf2e06cf6513ff48d049583569515ac4d4c3a52aea804a529",
    ),
    (
        "foolbox",
        "data/imagenet_13_471.jpg",
        "52ed0e738b90d27afcabc3e92c81ae637f160c2d9f75b93a65211005ab5dcd81",
    ),
    (
        "foolbox",
        "data/imagenet_14_129.jpg",
        "ad9371d813bf24b0365ee2f78f28c08718ee7c5975f060caa16c3f264e828139",
    ),
    (
        "foolbox",
        "data/imagenet_15_99.jpg",
        "4b588649cd835d4c65521727ebee03d9621baff1f54d3e8a53a26b53d983ec2e",
    ),
    (
        "foolbox",
        "data/imagenet_16_251.jpg",
        "ce3440a3b7beb6ca3009817504c44d39fa789e7c2f70a2eef7e2f9cc9a87b129",
    ),
    (
        "foolbox",
        "data/imagenet_17_22.jpg",
        "b432341845620e9cfd67d848c4783c32dd6eaddad45513866b17180d2b09fcf5",
    ),
    (
        "foolbox",
        "data/imagenet_18_317.jpg",
        "b9412f92f0b1c3faede45b55a44940977daa744f2040118d0538cf597fca785d",
    ),
    (
        "foolbox",
        "data/imagenet_19_305.jpg",
        "e1f58f00e2e47ce930d7ecab0e46a78316054f68c10d0742e87c1cc092324556",
    ),
)


def label(photo: Photo) -> int:
    """The ImageNet class of a photo of ``TEST``, from its name."""
    return int(photo[1].removesuffix(".jpg").rpartition("_")[2])


def crops(photos: Sequence[Photo], each: int, seed: int) -> tuple[Tensor, Tensor]:
    """Crops [N, 3, 224, 224] with values (x - 127) / 128 of pixels 0..255, and the photo each is of, [N].

    The first of ``each`` crops of a photo is the one in the centre; the others are squares of 60 % to all of the
    shorter side at random places, every other one mirrored.

    Raises:
        DataError: a package with photos is not installed.
    """
    parts, owners = [], []
    for number, (package, path, sha) in enumerate(photos):
        data = read_package_file(package, path, sha, REQUIREMENTS)
        with Image.open(io.BytesIO(data)) as opened:
            image = opened.convert("RGB")
        draw = np.random.default_rng((seed, number))
        parts.append(_square(image, *_centre(image)))
        for turn in range(1, each):
            part = _square(image, *_anywhere(image, draw))
            parts.append(np.ascontiguousarray(part[:, ::-1]) if turn % 2 else part)
        owners += [number] * each
    pixels = torch.from_numpy(np.stack(parts)).permute(0, 3, 1, 2).contiguous()
    return (pixels.float() - 127) / 128, torch.tensor(owners)


def _centre(image: Image.Image) -> tuple[float, float, float]:
    """Left, top and side of the centre crop."""
    side = _MARGIN * min(image.size)
    return (image.width - side) / 2, (image.height - side) / 2, side


def _anywhere(image: Image.Image, draw: np.random.Generator) -> tuple[float, float, float]:
    side = draw.uniform(_LEAST_SIDE, 1.0) * min(image.size)
    return draw.uniform(0, image.width - side), draw.uniform(0, image.height - side), side


def _square(image: Image.Image, left: float, top: float, side: float) -> NDArray[np.uint8]:
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box))
