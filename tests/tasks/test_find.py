"""Tasks out of the user's own files."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tinypress.errors import TaskError
from tinypress.tasks.find import find_task

NETWORK = """
from torch import nn

def build():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
"""
TASK = """
import torch
from network_beside import build
from tinypress import Split, Task

def split(count):
    return Split((torch.randn(count, 4),), torch.arange(count) % 3)

task = Task("mine", build(), (torch.randn(2, 4),), split(30), split(30), "accuracy")
"""


def test_a_task_may_import_what_lies_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "network_beside.py").write_text(NETWORK)
    (tmp_path / "task.py").write_text(TASK)
    assert find_task(str(tmp_path / "task.py")).name == "mine"


def test_an_unknown_name_says_how_own_tasks_are_named() -> None:
    with pytest.raises(TaskError, match=r"no such task\. Did you mean 'digits'\? .*--task task\.py"):
        find_task("digit")
    with pytest.raises(TaskError, match=r"file\.py \(for a run: --task file\.py\)"):
        find_task("7q")
