"""A small archive: two Linear layers with sparse affine 4-bit weights."""

import json
import struct

import archive_networks as networks
import pytest
import torch
from archive_files import stock

from tinypress.archive import write_archive


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "a.safetensors"
    torch.manual_seed(0)
    write_archive(path, networks.quantized(networks.pruned(stock(), 0.8), 4, "affine"))
    return path


@pytest.fixture(scope="module")
def good(small):
    """The plan as JSON, and the data."""
    file = small.read_bytes()
    length = struct.unpack("<Q", file[:8])[0]
    return json.loads(json.loads(file[8 : 8 + length])["__metadata__"]["tinypress"]), file[8 + length :]
