"""The pipeline from end to end on a small network: what it writes, what a killed run becomes, what verify sees."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from press.small import RECIPES, small_task
from tinypress.archive import read_archive
from tinypress.errors import RunError
from tinypress.press.pipeline import press
from tinypress.press.run_folder import read_receipt
from tinypress.press.verify import verify
from tinypress.receipt import Receipt
from tinypress.task import Task

VARYING = ("latency_ms", "seconds", "peak_memory_bytes")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "small"
    press(small_task(), RECIPES, out)
    return out


def steady(run: Path) -> dict[str, Any]:
    """The receipt without what differs between two runs."""
    raw: dict[str, Any] = json.loads((run / "receipt.json").read_text())
    del raw["checksum"]
    for candidate in raw["candidates"]:
        for key in VARYING:
            del candidate[key]
    return raw


def artifacts(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((run / "artifacts").iterdir())}


def test_the_folder_holds_the_files_of_the_receipt(run: Path) -> None:
    receipt = read_receipt(run)
    assert receipt.checksum == receipt.computed_checksum()
    assert [c.name for c in receipt.candidates] == [
        "fp32",
        "prune+int8",
        "prune+int8.archive",
        "shrink",
        "small",
    ]
    for candidate in receipt.candidates:
        assert (run / candidate.artifact.path).stat().st_size == candidate.artifact.bytes
    assert str(run) not in (run / "receipt.json").read_text()


def test_both_files_of_a_recipe_hold_the_same_integers(run: Path) -> None:
    proto = onnx.load(run / "artifacts" / "prune+int8.onnx")
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    plan = read_archive(run / "artifacts" / "prune+int8.archive.safetensors", small_task().model).plan
    assert plan is not None
    for name, weight in plan.weights.items():
        in_onnx = torch.from_numpy(stored[name].astype("int32") - stored[f"{name}:z"].flat[0].astype("int32"))
        packed = weight.packed.to(torch.int32)
        assert torch.equal(in_onnx.flatten(), torch.where(packed > 127, packed - 256, packed))
        assert (in_onnx == 0).float().mean() > 0.2  # the pruned zeros went through recovery and quantization


@pytest.mark.slow
def test_an_equal_run_gives_equal_files_whatever_came_between(run: Path, tmp_path: Path) -> None:
    """Killed at every fifth step of its writing, before and after the move, until it is done."""
    script = f"""
import os, signal, sys
import torch
torch.set_num_threads(1)
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from press.small import RECIPES, small_task
from tinypress.press.pipeline import press
left, move = int(sys.argv[2]), os.replace
def counted(old, new):
    global left
    left -= 1
    if left == 0 and len(sys.argv[3]) % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    move(old, new)
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = counted
press(small_task(), RECIPES, Path(sys.argv[1]))
"""
    out = tmp_path / "killed"
    kills = 0
    for attempt in range(40):
        done = subprocess.run(
            [sys.executable, "-c", script, str(out), "4", "x" * attempt], capture_output=True, text=True
        )
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        kills += 1
        for path in out.rglob("*"):  # nothing that has its final name is half-written
            if path.is_file() and path.suffix == ".json":
                json.loads(path.read_text())
            elif path.is_file() and path.suffix == ".onnx":
                onnx.checker.check_model(onnx.load(path))
    assert kills >= 10
    assert artifacts(out) == artifacts(run)
    assert steady(out) == steady(run)
    assert not list(out.rglob("*.part"))


def test_a_finished_run_is_read_and_not_made_again(run: Path) -> None:
    before = (run / "receipt.json").stat().st_mtime_ns
    assert press(small_task(), RECIPES, run) == read_receipt(run)
    assert (run / "receipt.json").stat().st_mtime_ns == before


def test_verify_passes_on_what_was_measured(run: Path) -> None:
    assert verify(run, small_task()) == ()


FIELDS = (
    "artifact.bytes",
    "artifact.sha256",
    "parameters",
    "nonzero_parameters",
    "macs",
    "validation.value",
    "quality.value",
    "quality.low",
    "drop.value",
    "drop.high",
)


@pytest.mark.parametrize("reseal", [False, True], ids=["edited", "edited and sealed again"])
@pytest.mark.parametrize("field", FIELDS)
def test_verify_names_an_edited_field(run: Path, field: str, reseal: bool) -> None:
    path = run / "receipt.json"
    original = path.read_text()
    raw = json.loads(original)
    part = next(c for c in raw["candidates"] if c["name"] == "shrink")
    *outer, last = field.split(".")
    for key in outer:
        part = part[key]
    # one digit becomes another
    part[last] = json.loads(
        re.sub(r"\d(?=\D*$)", lambda m: str((int(m[0]) + 1) % 10), json.dumps(part[last]), count=1)
    )
    receipt = Receipt.model_validate(raw)
    path.write_text((receipt.sealed() if reseal else receipt).model_dump_json())
    try:
        named = [mismatch.field for mismatch in verify(run, small_task()) if not mismatch.tolerated]
    finally:
        path.write_text(original)
    assert f"candidates.shrink.{field}" in named
    assert ("checksum" in named) != reseal


@pytest.mark.parametrize("name", ["fp32.onnx", "shrink.onnx", "prune+int8.archive.safetensors"])
def test_verify_names_a_changed_byte(run: Path, name: str) -> None:
    path = run / "artifacts" / name
    original = path.read_bytes()
    middle = len(original) // 2
    path.write_bytes(original[:middle] + bytes([original[middle] ^ 1]) + original[middle + 1 :])
    try:
        named = [mismatch.field for mismatch in verify(run, small_task())]
    finally:
        path.write_bytes(original)
    candidate = name.removesuffix(".onnx").removesuffix(".safetensors")
    assert f"candidates.{candidate}.artifact.sha256" in named


def test_the_recipe_of_a_run_makes_the_run_again(run: Path, tmp_path: Path) -> None:
    from tinypress.press.recipe import read_recipes

    again = read_recipes(run / "recipe.json")
    press(small_task(), again.recipes, tmp_path / "again", seed=again.seed or 0)
    assert artifacts(tmp_path / "again") == artifacts(run)


def test_the_callers_threads_are_put_back(run: Path, tmp_path: Path) -> None:
    torch.set_num_threads(2)
    press(small_task(), RECIPES[:1], tmp_path / "one", threads=1)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda task: {"test": task.test.take(slice(0, 60))}, "test"),
        (lambda task: {"validation": task.validation.take(slice(0, 60))}, "validation"),
        (lambda task: {"train": task.train.take(slice(1, None))}, "train"),
        (lambda task: {"metric": "macro_f1"}, "metric"),
        (lambda task: {"loss": nn.CrossEntropyLoss(label_smoothing=0.1)}, "loss"),
        (
            lambda task: {"training": replace(task.training, max_epochs=task.training.max_epochs + 1)},
            "training",
        ),
    ],
)
def test_a_run_on_other_data_is_not_taken_for_this_one(
    run: Path, change: Callable[[Task], dict[str, Any]], named: str
) -> None:
    task = small_task()
    with pytest.raises(RunError, match=f"differs in {named}\\. .*--fresh"):
        press(replace(task, **change(task)), RECIPES, run)


def test_a_damaged_artifact_of_a_finished_run_is_made_again(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    damaged = tmp_path / "run" / "artifacts" / "shrink.onnx"
    right = damaged.read_bytes()
    damaged.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    press(small_task(), RECIPES, tmp_path / "run")
    assert damaged.read_bytes() == right
    assert verify(tmp_path / "run", small_task()) == ()
