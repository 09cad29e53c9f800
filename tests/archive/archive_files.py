"""Archives by hand, sound but for what a test has changed in them."""

import json
import zlib

import numpy as np
import pytest
import safetensors.numpy
from torch import nn

from tinypress.archive import read_archive
from tinypress.errors import ArtifactError


def stock():
    return nn.Sequential(nn.Linear(20, 4), nn.ReLU(), nn.Linear(4, 3))


def make_file(plan, data, *, sign=True):
    if sign and isinstance(plan, dict) and "crc32" in plan:
        plan["crc32"] = zlib.crc32(data)
    text = plan if isinstance(plan, str) else json.dumps(plan)
    tensors = {"data": np.frombuffer(data, dtype=np.uint8)}
    return safetensors.numpy.save(tensors, metadata={"tinypress": text})


def refused(path, said):
    with pytest.raises(ArtifactError) as caught:
        read_archive(path, stock())
    assert f"read_archive('{path.name}', Sequential)" in str(caught.value)
    assert said in str(caught.value)
    assert caught.value.remedy
    assert len(str(caught.value)) < 1500


def put(plan, path, value):
    for step in path[:-1]:
        plan = plan[step]
    plan[path[-1]] = value
