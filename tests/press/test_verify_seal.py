"""A receipt or a file that was edited after the run is told, before anything is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from press.test_choose import BASELINE
from tinypress.files import sha256
from tinypress.press.verify import verify
from tinypress.receipt import Machine, Receipt, Tolerance
from tinypress.task import Split, Task

DATA = b"what was measured"


def a_run(path: Path) -> Task:
    """A folder with a receipt of one artifact, and its task."""
    artifact = BASELINE.artifact.model_copy(update={"bytes": len(DATA), "sha256": sha256(DATA)})
    receipt = Receipt(
        tinypress="0",
        task="small",
        about="",
        metric="accuracy",
        higher_is_better=True,
        machine=Machine(cpu="", isa=(), threads=1, runtimes={}),
        seed=0,
        tolerance=Tolerance(value=1.0, unit="points"),
        candidates=(BASELINE.model_copy(update={"artifact": artifact}),),
        pareto=("baseline",),
        chosen="baseline",
    ).sealed()
    (path / "artifacts").mkdir()
    (path / artifact.path).write_bytes(DATA)
    (path / "receipt.json").write_text(receipt.model_dump_json())
    split = Split((torch.zeros(2, 3),), torch.zeros(2, dtype=torch.int64))
    return Task("small", nn.Linear(3, 2), (torch.zeros(1, 3),), split, split, "accuracy")


def fields(path: Path, task: Task) -> set[str]:
    return {mismatch.field for mismatch in verify(path, task)}


def test_an_edited_number_breaks_the_seal(tmp_path: Path) -> None:
    task = a_run(tmp_path)
    assert "checksum" not in fields(tmp_path, task)
    file = tmp_path / "receipt.json"
    receipt: dict[str, Any] = json.loads(file.read_text())
    receipt["candidates"][0]["quality"]["value"] = 0.99
    file.write_text(json.dumps(receipt))
    assert "checksum" in fields(tmp_path, task)


def test_another_file_of_the_same_size_is_told_apart(tmp_path: Path) -> None:
    task = a_run(tmp_path)
    assert "candidates.baseline.artifact.sha256" not in fields(tmp_path, task)
    (tmp_path / "artifacts" / "baseline.onnx").write_bytes(DATA[::-1])
    assert fields(tmp_path, task) == {"candidates.baseline.artifact.sha256"}


def test_a_longer_file_is_told_by_its_bytes_too(tmp_path: Path) -> None:
    task = a_run(tmp_path)
    (tmp_path / "artifacts" / "baseline.onnx").write_bytes(DATA + b"!")
    assert fields(tmp_path, task) == {
        "candidates.baseline.artifact.bytes",
        "candidates.baseline.artifact.sha256",
    }
