"""Files cut, flipped and rewritten at random: refused as an artifact, or still a network that runs."""

import json
import struct

import pytest
import torch
from archive_files import make_file, put, refused, stock
from hypothesis import given, settings
from hypothesis import strategies as st

from tinypress.archive import archive_layers, read_archive
from tinypress.errors import ArtifactError


@pytest.mark.parametrize("share", [0, 0.001, 0.01, 0.2, 0.5, 0.9, 0.99, 1])
def test_every_truncation_is_refused(small, tmp_path, share):
    file = small.read_bytes()
    # around each share, and both sides of the place where the data begins
    starts = {int(share * (len(file) - 1)), 7, 8, 9, 8 + struct.unpack("<Q", file[:8])[0]}
    for length in sorted({min(start + step, len(file) - 1) for start in starts for step in range(3)}):
        path = tmp_path / "cut"
        path.write_bytes(file[:length])
        refused(path, "")
        with pytest.raises(ArtifactError):
            archive_layers(path)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_flipped_byte_is_refused_or_harmless(small, data):
    file = bytearray(small.read_bytes())
    place = data.draw(st.integers(0, len(file) - 1))
    file[place] ^= data.draw(st.integers(1, 255))
    path = small.with_name("flipped")
    path.write_bytes(bytes(file))
    try:
        found = read_archive(path, stock())
    except ArtifactError:
        return
    # what is left is a flip in a name that no tensor has, a scale of an activation or a pruned number
    assert found.model(torch.ones(1, 20)).shape == (1, 3)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_flipped_data_with_a_right_checksum_is_refused_or_a_finite_network(small, good, data):
    plan, content = good
    flipped = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        flipped[data.draw(st.integers(0, len(flipped) - 1))] ^= data.draw(st.integers(1, 255))
    path = small.with_name("signed")
    path.write_bytes(make_file(json.loads(json.dumps(plan)), bytes(flipped)))
    try:
        found = read_archive(path, stock())
    except ArtifactError:
        return
    assert all(bool(torch.isfinite(p).all()) for p in found.model.parameters())


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def _paths(value, here=()):
    yield here
    if isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _paths(inner, (*here, place))
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _paths(inner, (*here, key))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_plan_with_anything_anywhere_is_refused_or_harmless(small, good, data):
    plan, content = json.loads(json.dumps(good[0])), good[1]
    where = data.draw(st.sampled_from([path for path in _paths(plan) if path]))
    put(plan, where, data.draw(_JSON))
    path = small.with_name("drawn")
    path.write_bytes(make_file(plan, content))
    try:
        found = read_archive(path, stock())
    except ArtifactError:
        return
    assert found.model(torch.ones(1, 20)).shape == (1, 3)
