"""``tinypress latency-table`` writes the file, prints the findings, and refuses what it cannot use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tinypress.cli.main import main
from tinypress.measure.latency_table import read_latency_table

TASK = """
import torch
from torch import nn
from tinypress import Split, Task

def split(count):
    return Split((torch.randn(count, 6),), torch.arange(count) % 3)

task = Task("mine", nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)), (torch.randn(2, 6),), split(30),
            split(30), "accuracy")
"""


SOURCE = str(Path(__file__).parents[2] / "src")


def run(folder, *words):
    return subprocess.run(
        [sys.executable, "-m", "tinypress", "latency-table", *words],
        cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": SOURCE},
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "task.py").write_text(TASK)
    return tmp_path


def test_it_writes_the_table_and_says_what_it_found(folder):
    ran = run(folder, "task.py", "--seconds", "0.02")
    assert ran.returncode == 0, ran.stderr
    table = read_latency_table(folder / "runs" / "mine-latency.json")
    assert [row.layers for row in table.layers] == [("0",), ("2",)]
    assert "Linear (0), outputs:" in ran.stdout
    assert "multiple" in ran.stdout.splitlines()[-3]
    assert str(table.machine.cpu) in ran.stdout


@pytest.mark.slow
def test_json_is_the_file(folder):
    ran = run(folder, "task.py", "--seconds", "0.02", "--json", "--out", "t.json")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == (folder / "t.json").read_text()


@pytest.mark.parametrize("words", [[], ["nothing"], ["task.py", "--seconds", "0"]])
def test_wrong_usage_is_refused(folder, words, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["tinypress", "latency-table", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
