"""What several tests need: the command line in this process, and modules as a learner has them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

os.environ.setdefault("COLUMNS", "200")

from learning import MODULE
from tinypress_course.cli.main import app_for


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tito(tmp_path, monkeypatch) -> Callable[..., int]:
    """Call ``tito`` with arguments, in an empty folder of its own; the exit code comes back."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> int:
        code = app_for(arguments)(list(arguments), standalone_mode=False)
        return code if isinstance(code, int) else 0

    return call


@pytest.fixture
def exercise(tito, monkeypatch, capsys) -> Path:
    """The folder of a module that was just begun; it is the current one."""
    assert tito("start", "10_compression") == 0
    capsys.readouterr()
    monkeypatch.chdir("10_compression")
    return Path.cwd()


@pytest.fixture
def solved(exercise) -> Path:
    """The same with the reference solutions in it."""
    shutil.copy(MODULE / "compression_dev.py", exercise / "compression_dev.py")
    return exercise
