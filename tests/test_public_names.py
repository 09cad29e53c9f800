"""The package's surface: complete, sorted, documented; and the version stands in one place."""

from __future__ import annotations

import inspect
import tomllib
from importlib.metadata import version
from pathlib import Path

import tinypress

ROOT = Path(__file__).parents[1]


def test_all_is_complete_and_sorted() -> None:
    public = {
        name
        for name, value in vars(tinypress).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    # functions that share the name of the package they live in hide it, and are public all the same
    assert set(tinypress.__all__) == public
    assert list(tinypress.__all__) == sorted(tinypress.__all__)


def test_every_public_name_is_documented() -> None:
    for name in tinypress.__all__:
        assert inspect.getdoc(getattr(tinypress, name)), name


def test_version_and_changelog_agree() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert declared == version("tinypress")
    newest = next(line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## "))
    assert newest.split()[1] == declared
