"""The one pickle that is read: NumPy arrays come through, anything else is refused and never run."""

from __future__ import annotations

import io
import os
import pickle  # noqa: TID251  (hostile files are made with it)
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinypress.errors import DataError
from tinypress.tasks.admit import read_object_array
from tinypress.tasks.data_files import read_package_file


def as_npy(value: Any, protocol: int = 2) -> bytes:
    """A one-element object array around ``value``, as ``numpy.save`` writes it."""
    whole = np.empty((), dtype=object)
    whole[()] = value
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": ()})
    return header.getvalue() + pickle.dumps(whole, protocol=protocol)


def test_a_dictionary_of_arrays_comes_through() -> None:
    value = {"X": [np.arange(6.0).reshape(2, 3), np.ones(4, np.float32)], "y": np.array([1, 2]), "name": "a"}
    found = read_object_array(as_npy(value))
    assert found.keys() == value.keys()
    assert np.array_equal(found["X"][0], value["X"][0])
    assert found["X"][1].dtype == np.float32
    assert found["y"].tolist() == [1, 2]


class Runs:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    "function", [os.system, eval, exec, __import__, getattr, np.save, np.load, pickle.loads, open]
)
def test_any_other_function_is_refused_and_not_called(function: Any, protocol: int, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    text = f"touch {trap}" if function is os.system else f"open({str(trap)!r}, 'w')"
    with pytest.raises(DataError, match="is not admitted"):
        read_object_array(as_npy(Runs(function, text), protocol))
    assert not trap.exists()


def test_a_codec_that_does_more_than_latin1_is_refused() -> None:
    import _codecs

    with pytest.raises(DataError, match="refused"):
        read_object_array(as_npy(Runs(_codecs.encode, "text", "rot13")))


@pytest.mark.parametrize(
    "data", [b"", b"PK\x03\x04", as_npy(1)[:40], as_npy({"X": np.ones(3)})[:-20], as_npy([1])[:10]]
)
def test_a_damaged_file_is_refused(data: bytes) -> None:
    with pytest.raises(DataError):
        read_object_array(data)


def test_a_file_with_another_hash_is_refused_before_it_is_read() -> None:
    with pytest.raises(DataError, match=r"hash|SHA-256"):
        read_package_file("seglearn", "data/watch_dataset.npy", "0" * 64)


def test_a_package_that_is_not_installed() -> None:
    with pytest.raises(DataError, match="install"):
        read_package_file("no-such-package", "data.npy", "0" * 64)
