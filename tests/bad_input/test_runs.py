"""A folder, disk or artifact that cannot be used: the error says so, and what was finished stays."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
from onnx import helper

from bad_input.tiny import recipes, refused, task
from tinypress.errors import ArtifactError, RunError
from tinypress.files import write_bytes
from tinypress.press.pipeline import press
from tinypress.press.run_folder import read_receipt
from tinypress.press.step import Quantize, Recover
from tinypress.press.verify import verify
from tinypress.runtimes.onnx import open_onnx

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "tiny"
    press(task(), recipes(Quantize()), out)
    return out


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with refused(RunError, "cannot be written", "--out"):
        press(task(), recipes(), tmp_path / "file")
    with refused(RunError, "cannot be written", "--out"):
        press(task(), recipes(), tmp_path / "file" / "inside")
    assert (tmp_path / "file").read_text() == "mine"


def test_what_is_in_the_way_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("mine")
    (tmp_path / "taken").mkdir()
    with refused(RunError, f"Move {tmp_path / 'state'} out of the way"):
        write_bytes(tmp_path / "state" / "training" / "last", b"new")
    with refused(RunError, f"Move {tmp_path / 'taken'} out of the way"):
        write_bytes(tmp_path / "taken", b"new")
    assert (tmp_path / "state").read_text() == "mine"
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["state", "taken"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody may write to")
def test_a_folder_that_nobody_may_write_to() -> None:
    with refused(RunError, "cannot be written", "--out"):
        press(task(), recipes(), Path("/proc/tinypress-run"))


def test_a_folder_with_other_things(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    for fresh in (False, True):
        with refused(RunError, "other things", "thesis.tex", "--out"):
            press(task(), recipes(), tmp_path, fresh=fresh)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_with_another_run(finished: Path) -> None:
    before = (finished / "receipt.json").read_bytes()
    with refused(RunError, "differs in seed", "--fresh"):
        press(task(), recipes(Quantize()), finished, seed=1)
    assert (finished / "receipt.json").read_bytes() == before


def test_a_disk_that_is_full_and_then_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third file no longer fits; with space again the same call goes on, to the same artifacts."""
    space, fsync = 3, os.fsync

    def full(handle: int) -> None:
        nonlocal space
        space -= 1
        if space < 0:
            raise OSError(28, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with refused(RunError, "No space left on device", "Free some space", "continues"):
        press(task(), recipes(Recover(), Quantize()), tmp_path / "full")
    assert not (tmp_path / "full" / "receipt.json").exists()
    assert not list(tmp_path.rglob("*.part"))
    monkeypatch.undo()
    press(task(), recipes(Recover(), Quantize()), tmp_path / "full")
    press(task(), recipes(Recover(), Quantize()), tmp_path / "roomy")
    for path in (tmp_path / "roomy" / "artifacts").iterdir():
        assert (tmp_path / "full" / "artifacts" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("kept", [0, 10, 0.5, -1])
def test_a_truncated_onnx_file(finished: Path, tmp_path: Path, kept: float) -> None:
    data = (finished / "artifacts" / "pressed.onnx").read_bytes()
    end = int(len(data) * kept) if isinstance(kept, float) else kept
    short = tmp_path / "short.onnx"
    short.write_bytes(data[:end])
    with refused(ArtifactError, "short.onnx"):
        open_onnx(short)


def test_an_onnx_file_that_reads_other_files(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\0" * 64)
    weight = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[4, 4])
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../secret")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 4])],
        [weight],
    )
    hostile = tmp_path / "inside" / "hostile.onnx"
    hostile.parent.mkdir()
    hostile.write_bytes(helper.make_model(graph).SerializeToString())
    with refused(ArtifactError, "hostile.onnx"):
        open_onnx(hostile)


def test_verify_without_the_artifact(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "artifacts" / "pressed.onnx").unlink()
    named = [mismatch.field for mismatch in verify(run, task())]
    assert any(field.startswith("candidates.pressed.artifact") for field in named)


@pytest.mark.parametrize(
    ("edit", "word"),
    [
        (lambda text: text[: len(text) // 2], "JSON"),
        (lambda text: "[]", "the file"),
        (lambda text: "[" * 100_000, "the file"),
        (lambda text: text.replace('"baseline"', '"candidate"'), "candidates"),
    ],
    ids=["truncated", "another kind", "deep", "no baseline"],
)
def test_a_receipt_that_is_none(finished: Path, tmp_path: Path, edit: object, word: str) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    assert callable(edit)
    (run / "receipt.json").write_text(edit((run / "receipt.json").read_text()))
    with refused(RunError, word):
        read_receipt(run)


def test_a_receipt_that_names_a_file_outside_its_run(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    text = (run / "receipt.json").read_text()
    (run / "receipt.json").write_text(text.replace('"artifacts/pressed.onnx"', '"../outside.onnx"'))
    with refused(ArtifactError, "candidates.pressed.artifact.path", "../outside.onnx"):
        verify(run, task())


@pytest.mark.slow
def test_ctrl_c_leaves_a_run_that_goes_on(tmp_path: Path) -> None:
    """The command is interrupted while it works; the same command ends with a receipt that verifies."""
    module = tmp_path / "slow.py"
    module.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT / 'tests')!r})\n"
        "from bad_input.tiny import task as tiny, samples\n"
        "def task():\n"
        "    return tiny(name='slow', train=samples(3000, 1))\n"
    )
    out = tmp_path / "run"
    recipe = tmp_path / "r.json"
    recipe.write_text(
        json.dumps({"steps": [{"technique": "recover", "epochs": 100}, {"technique": "quantize"}]})
    )
    command = [
        sys.executable,
        "-m",
        "tinypress",
        "press",
        str(module),
        "--recipe",
        str(recipe),
        "--out",
        str(out),
    ]
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell that runs the tests in the background has its children ignore the signal
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for _ in range(1200):
        if (out / "artifacts" / "fp32.onnx").exists():
            break
        time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=120)
    assert child.returncode == 130, said
    assert "goes on" in said
    assert "Traceback" not in said
    assert not (out / "receipt.json").exists()
    kept = (out / "artifacts" / "fp32.onnx").stat().st_mtime_ns
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (out / "artifacts" / "fp32.onnx").stat().st_mtime_ns == kept
    checked = subprocess.run(
        [sys.executable, "-m", "tinypress", "verify", str(out), "--task", str(module)], capture_output=True
    )
    assert checked.returncode == 0
